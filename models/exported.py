"""A model that scripts/export.py has written to ONNX, computed by onnxruntime on the CPU.

    model = load_onnx("outputs/rewind/parameter_pruned/kd_70_rte_0.5/onnx_30")
    logits = model(input_ids, token_type_ids, attention_mask)

onnxruntime is not among the requirements; it is imported where it is used.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.encoder import Config
from models.families import is_ours
from models.hub import one_line_errors, read_config
from models.units import CheckpointError

ONNX = "model.onnx"
SOURCE = "export.json"  # marks a folder as an export; digest of its checkpoint, and what that was trained with
INPUTS = ("input_ids", "token_type_ids", "attention_mask")


def open_session(path: str | Path) -> Any:
    """An onnxruntime session on the CPU, with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def onnx_logits(session: Any, inputs: tuple[Tensor, Tensor, Tensor]) -> np.ndarray:
    """Logits (B, C) by onnxruntime; `inputs` are token ids, token types and attention mask, each (B, T)."""
    return session.run(None, {name: part.long().numpy() for name, part in zip(INPUTS, inputs, strict=True)})[0]


class OnnxModel:
    """An exported model, called as the model that it was made of: configuration and session."""

    def __init__(self, config: Config, session: Any):
        self.config = config
        self.session = session

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Logits (B, C) of token ids, token types and attention mask, each (B, T)."""
        return torch.from_numpy(onnx_logits(self.session, inputs))


def load_onnx(folder: str | Path) -> OnnxModel:
    """The model of a folder that scripts/export.py wrote with --format onnx.

    Raises:
        CheckpointError: onnxruntime is not installed, the folder is none that export.py wrote, or it is damaged.
    """
    raw = read_config(str(folder))
    with one_line_errors(str(folder)):
        if not is_ours(raw):
            raise CheckpointError(f"a {ONNX} that scripts/export.py did not write, expected one of its exports")
        try:
            session = open_session(Path(folder, ONNX))
        except ImportError:
            raise CheckpointError("exported to ONNX, onnxruntime is missing: pip install onnxruntime") from None
        found = tuple(part.name for part in session.get_inputs())
        if found != INPUTS:
            raise CheckpointError(f"{ONNX} has the inputs {', '.join(found)}; expected {', '.join(INPUTS)}")
        return OnnxModel(Config(**raw), session)
