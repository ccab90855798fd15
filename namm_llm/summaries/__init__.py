"""Summaries of texts of any length: in one pass if the model can hold the text, else in parts."""

from namm_llm.summaries.plan import OPTIONS, Method, Plan, check_options
from namm_llm.summaries.request import LENGTHS
from namm_llm.summaries.stream import SummaryStream
from namm_llm.summaries.summarizer import stream_summary, summarize
from namm_llm.summaries.summary import Part, Summary
from namm_llm.summaries.work import WorkFile, work_path

__all__ = [
    "LENGTHS",
    "OPTIONS",
    "Method",
    "Part",
    "Plan",
    "Summary",
    "SummaryStream",
    "WorkFile",
    "check_options",
    "stream_summary",
    "summarize",
    "work_path",
]
