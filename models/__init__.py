"""Prunable encoders: reading, scoring and cutting them, and the losses that train them."""

from models.bert import PrunableBert
from models.checkpoint import load_model
from models.modernbert import PrunableModernBert
from models.units import CheckpointError, Units

__all__ = ["CheckpointError", "PrunableBert", "PrunableModernBert", "Units", "load_model"]
