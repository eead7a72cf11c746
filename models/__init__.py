"""The prunable encoders, their checkpoints, their scores, their cutting and the losses."""

from models.bert import PrunableBert
from models.checkpoint import load_model
from models.units import CheckpointError, Units

__all__ = ["CheckpointError", "PrunableBert", "Units", "load_model"]
