"""What models of scripts/report.py cost: parameters and MACs from config.json alone, speed measured on this machine."""

import functools
from pathlib import Path
from typing import NamedTuple

import torch

from models.checkpoint import weightless_model
from models.units import CheckpointError
from scripts import export, inspect_model
from utils.errors import InputError
from utils.files import has_weights, read_json

BATCH, LENGTH, REPEATS = 8, 128, 10  # of a measurement: examples, tokens of each, timed runs


class Costs(NamedTuple):
    """Of one model."""

    parameters: int
    macs: int  # for an example of LENGTH tokens, whether or not the model takes so many


def costs_of(checkpoint: Path) -> Costs | None:
    """By the widths that its config.json gives each layer, with or without weights beside it; None without that file.

    Raises:
        InputError: no model can be made of it.
    """
    if not (content := read_json(checkpoint / "config.json")):
        return None
    try:
        model = weightless_model(content)
    except CheckpointError as error:
        raise InputError(f"{checkpoint / 'config.json'}: {error}") from error
    return Costs(model.num_parameters(), inspect_model.macs(model, LENGTH))


def can_be_measured(checkpoint: Path) -> bool:
    """Whether it has weights still, and takes rows of LENGTH tokens."""
    longest = read_json(checkpoint / "config.json").get("max_position_embeddings", 0)
    return has_weights(checkpoint) and longest >= LENGTH


def batch_times(checkpoints: dict[str, Path], device: str) -> dict[str, list[float]]:
    """Milliseconds of each model for BATCH rows of LENGTH tokens, REPEATS times; in turns, so that all share the load.

    Raises:
        CheckpointError: weights cannot be read.
    """
    calls = {}
    times = {name: [] for name in checkpoints}
    for name, checkpoint in checkpoints.items():
        model = export.load_for_inference(str(checkpoint)).to(device)
        inputs = [part.to(device) for part in export.random_inputs(model.config, BATCH, LENGTH)]
        calls[name] = functools.partial(model, *inputs)
    with torch.inference_mode():
        for _ in range(inspect_model.WARM_UP + REPEATS):
            for name, call in calls.items():
                times[name].append(inspect_model.timed(call, device))
    return {name: taken[inspect_model.WARM_UP :] for name, taken in times.items()}
