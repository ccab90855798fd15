"""Making a NAMM for a model: distillation by gradient, evolution, calibration.

`documents` are what it is made on, drawn by `sample_source`; `families` are the forms it can have.
`distillation` learns from `target_attention` what `collection` saw; `evolution` ranks candidates by
`teacher_forcing`, with `search`, `checkpoint` and `workers`; `calibration` fits the statistics, and
`threshold` sets the zero.
"""

from namm_lab.train.distillation import DistilSettings, distil
from namm_lab.train.documents import EvalDocument, TrainDocument

__all__ = ["DistilSettings", "EvalDocument", "TrainDocument", "distil"]
