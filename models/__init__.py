"""The prunable BERT, its scores, its cutting and the losses."""

from models.bert import PrunableBert
from models.units import CheckpointError, Units

__all__ = ["CheckpointError", "PrunableBert", "Units"]
