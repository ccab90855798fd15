"""LoRA of a model while its cache evicts: the model learns to do with what is kept."""

from namm_lab.train.adapt.base import load_base
from namm_lab.train.adapt.held_out import HeldOut, measure
from namm_lab.train.adapt.samples import TextSource
from namm_lab.train.adapt.settings import AdaptSettings
from namm_lab.train.adapt.trainer import AdapterTraining

__all__ = ["AdaptSettings", "AdapterTraining", "HeldOut", "TextSource", "load_base", "measure"]
