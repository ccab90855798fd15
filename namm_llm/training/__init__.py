"""Making a NAMM for a model."""

from namm_llm.training.distil import DistilSettings, distil
from namm_llm.training.lessons import Lesson

__all__ = ["DistilSettings", "Lesson", "distil"]
