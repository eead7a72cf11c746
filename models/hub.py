"""The files of a checkpoint folder or hub name: config.json, and weights as safetensors or pickle, whole or in parts.

config = read_config("outputs/finetune/ft_rte/ckpt")
weights = read_weights("bert-base-uncased")
"""

import contextlib
import json
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError
from safetensors.torch import load_file
from torch import Tensor

from models.units import CheckpointError

NOT_FOUND = (
    "no such folder, and no such name on the hub or in its cache; expected a folder of config.json, model.safetensors "
    "and the tokenizer's files: tokenizer.json or vocab.txt, and tokenizer_config.json"
)
SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
ADAPTER = "adapter_config.json"  # of peft: what lies beside it is less than the model, or the model before tuning
LONGEST_REASON = 300  # characters of a library's message


def read_config(path: str) -> dict[str, Any]:
    """The content of the config.json of a folder or hub name.

    Raises:
        CheckpointError: not found, or no JSON object.
    """
    with one_line_errors(path):
        folder = Path(path)
        if (folder / ADAPTER).is_file():
            raise CheckpointError(
                f"an adapter ({ADAPTER}), expected a whole model, as merge_and_unload() of peft makes it"
            )
        if folder.exists() and not (folder / "config.json").is_file():
            raise CheckpointError("no config.json there, expected a folder as Hugging Face's library writes it")
        try:
            file = _find(path, "config.json")
        except HFValidationError as error:
            raise CheckpointError("no such folder, expected a checkpoint") from error
        except OSError as error:
            raise CheckpointError(NOT_FOUND) from error
        try:
            config = json.loads(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"config.json: {error}") from error
        if not isinstance(config, dict):
            raise ValueError(f"config.json: found {config!r}, expected an object")
        return config


def read_weights(path: str) -> dict[str, Tensor]:
    """All weights of a checkpoint, name -> weight, on the CPU; floating-point ones in float32.

    Raises:
        CheckpointError: not found, or damaged.
    """
    with one_line_errors(path):
        for name in (SAFETENSORS, PICKLE):
            if file := _find_if_there(path, name):
                return _in_float32(_read_file(file))
            if index := _find_if_there(path, f"{name}.index.json"):
                return _in_float32({k: v for part in _parts(index) for k, v in _read_file(_find(path, part)).items()})
        raise CheckpointError(f"no weights there, expected {SAFETENSORS} or {PICKLE}, whole or in parts")


def _find(path: str, name: str) -> Path:
    """The path of a file of a folder or hub name, downloaded if need be."""
    return Path(path, name) if Path(path).exists() else Path(hf_hub_download(path, name))


def _find_if_there(path: str, name: str) -> Path | None:
    """The path of a file of a folder or hub name; None if there is none, or the hub is out of reach and none cached."""
    with contextlib.suppress(EntryNotFoundError):
        file = _find(path, name)
        return file if file.is_file() else None
    return None


def _parts(index: Path) -> list[str]:
    """The names of the files that hold the weights, which lie beside their index."""
    content = json.loads(index.read_bytes())
    named = content.get("weight_map") if isinstance(content, dict) else None
    parts = list(named.values()) if isinstance(named, dict) else [named]
    for part in parts:
        if not isinstance(part, str) or Path(part).name != part:
            raise CheckpointError(f"{index.name}: weight_map names {part!r}, expected files beside it")
    return sorted(set(parts))


def _read_file(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        return load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def _in_float32(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the weights, which do not depend on the file any more; floating-point ones in float32."""
    return {
        name: weight.to(torch.float32 if weight.is_floating_point() else weight.dtype, copy=True)
        for name, weight in weights.items()
    }


@contextlib.contextmanager
def one_line_errors(path: str) -> Iterator[None]:
    """Turn any error raised within `with` into a CheckpointError of one line that names the checkpoint."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # no warning for each retry
    try:
        yield
    except Exception as error:  # libraries raise many kinds for damaged files; --debug shows which
        if isinstance(error, CheckpointError):
            line = str(error)
            raise CheckpointError(line if line.startswith(f"{path}: ") else f"{path}: {line}") from error
        raise CheckpointError(f"{path}: {_reason(Path(path), error)}") from error


def _reason(folder: Path, error: Exception) -> str:
    """A library's message in one line, or the true cause where the message is misleading."""
    because = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
    if isinstance(error, pickle.UnpicklingError):  # its message advises to load the file unsafely
        because = "weights that are damaged, or something else than tensors"
    for file in sorted(path for kind in ("*.json", "*.safetensors", "*.bin") for path in folder.glob(kind)):
        with open(file, "rb") as opened:
            if opened.read(23) == b"version https://git-lfs":
                because = f"{file.name} is a git-lfs pointer, not the file itself; git lfs pull fetches it"
    return f"cannot be read: {because}"
