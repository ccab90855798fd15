"""Documents to evaluate on and to learn from, out of task samples, in a model's own chat format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from namm_lab.tasks import Sample, draw_samples, make_task
from namm_lab.train.documents import EvalDocument, TrainDocument
from namm_llm import ContextError, UsageError
from namm_llm.models.loading import LoadedModel
from namm_llm.models.prompt import PromptFormat

Labels = Literal["questions", "repeat"]
LABELS: tuple[Labels, ...] = get_args(Labels)
REPEAT = "Repeat the text above, word for word."
QUESTION_TOKENS = 1024
"""Positions that are left for questions and answers."""


@dataclass(frozen=True)
class SampleSource:
    """Samples of tasks for one model.

    Raises UsageError for documents that are too short, ContextError for ones that do not fit.
    """

    loaded: LoadedModel
    lengths: tuple[int, ...]
    """Tokens of the documents; they take turns."""
    texts: Path | None = None
    """A folder that documents are made of; None for what Python brings along."""
    questions: int = 8
    """About a document."""

    def __post_init__(self) -> None:
        positions = self.loaded.positions
        if not self.lengths or min(self.lengths) < 64:
            raise UsageError(
                f"documents need at least 64 tokens, not {min(self.lengths, default=0)}"
            )
        if positions is not None and max(self.lengths) + QUESTION_TOKENS > positions:
            raise ContextError(
                f"documents of {max(self.lengths)} tokens and {QUESTION_TOKENS} for the questions "
                f"do not fit {self.loaded.model_id}, which was trained on {positions} positions: "
                "give a smaller --length."
            )

    @cached_property
    def format(self) -> PromptFormat:
        """Texts to ids."""
        return PromptFormat(self.loaded.tokenizer, self.loaded.backend, self.loaded.model_id)

    def samples(self, split: str, task: str, seed: int, count: int) -> list[Sample]:
        """`count` samples; the lengths take turns, beginning with another one for the next seed."""
        encode, drawn = self.format.encode, []
        for index, length in enumerate(self.lengths):
            turns = len(range((index - seed) % len(self.lengths), count, len(self.lengths)))
            if turns:
                drawn += draw_samples(
                    make_task(task, questions=self.questions),
                    length,
                    split=split,
                    seed=seed,
                    count=turns,
                    count_tokens=lambda text: len(encode(text)),
                    texts=self.texts,
                )
        return drawn

    def eval_documents(
        self, split: str, tasks: Sequence[str], seed: int, count: int
    ) -> list[EvalDocument]:
        """`count` documents of each task: the `draw` of an `Evolution`."""
        return [
            eval_document_of(sample, self.format)
            for task in tasks
            for sample in self.samples(split, task, seed, count)
        ]

    def train_documents(
        self, tasks: Sequence[str], seed: int, count: int, labels: Labels = "questions"
    ) -> list[TrainDocument]:
        """`count` documents in all, the tasks in turn. UsageError for labels that do not exist."""
        if labels not in LABELS:
            raise UsageError(f"the labels must be {' or '.join(LABELS)}, not {labels!r}")
        make = repeated_document_of if labels == "repeat" else train_document_of
        drawn = [self.samples("train", task, seed, -(-count // len(tasks))) for task in tasks]
        in_turn = [sample for turn in zip(*drawn, strict=True) for sample in turn]
        return [make(sample, self.format) for sample in in_turn[:count]]

    def documents(self, task: str, seed: int, count: int) -> list[list[int]]:
        """Token ids of `count` documents, as they are read before a question."""
        return [
            self.format.document(sample.document)
            for sample in self.samples("train", task, seed, count)
        ]


def eval_document_of(sample: Sample, prompts: PromptFormat) -> EvalDocument:
    """The sample as token ids; the only question about a text that goes on is its last token."""
    if any(question.is_continuation for question in sample.questions):
        ids = prompts.prompt(sample.document)
        answers = tuple(tuple(prompts.encode(question.answer)) for question in sample.questions)
        return EvalDocument(
            sample.task, tuple(ids[:-1]), (tuple(ids[-1:]),) * len(answers), answers
        )
    return EvalDocument(
        task=sample.task,
        document=tuple(prompts.document(sample.document)),
        questions=tuple(tuple(prompts.question(question.prompt)) for question in sample.questions),
        answers=tuple(tuple(prompts.encode(question.answer)) for question in sample.questions),
    )


def train_document_of(sample: Sample, prompts: PromptFormat) -> TrainDocument:
    """All questions with their answers as one conversation about the document; a text that goes on,
    with how it does.
    """
    if any(question.is_continuation for question in sample.questions):
        return TrainDocument(
            prompts.prompt(sample.document),
            [token for question in sample.questions for token in prompts.encode(question.answer)],
        )
    return TrainDocument(prompts.document(sample.document), _conversation(sample, prompts))


def repeated_document_of(sample: Sample, prompts: PromptFormat) -> TrainDocument:
    """The document, and the document once more as the answer to a request to repeat it, as in KVzip
    (arXiv 2505.23416): whatever can be asked of a text has to be found in it, and the repetition
    looks for all of it.
    """
    request = prompts.question([{"role": "user", "content": REPEAT}])
    ids = prompts.document(sample.document)
    return TrainDocument(ids, [*request, *ids[prompts.head_tokens :]])


def _conversation(sample: Sample, prompts: PromptFormat) -> list[int]:
    *earlier, last = sample.questions
    if not prompts.template.is_there:
        pairs = [
            (prompts.question(question.prompt), prompts.encode(f" {question.answer}"))
            for question in sample.questions
        ]
        return [token for question, answer in pairs for token in (*question, *answer)]
    messages = []
    for question in earlier:
        messages += [
            {"role": "user", "content": question.prompt},
            {"role": "assistant", "content": question.answer},
        ]
    messages.append({"role": "user", "content": last.prompt})
    return [*prompts.question(messages), *prompts.encode(last.answer)]
