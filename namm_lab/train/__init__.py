"""Making a NAMM for a model."""

from namm_lab.train.distil import DistilSettings, distil
from namm_lab.train.lessons import TrainDocument

__all__ = ["DistilSettings", "TrainDocument", "distil"]
