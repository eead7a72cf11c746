"""The prunable BERT, its scores, its cutting and the losses."""

from models.bert import CheckpointError, PrunableBert, Units

__all__ = ["CheckpointError", "PrunableBert", "Units"]
