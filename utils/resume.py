"""The state of a training run on disk, so that the same command goes on where a killed one stopped.

Only what torch's weights-only loader takes is written and read: tensors, numbers, strings, and lists and dicts of them.
"""

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils import processes
from utils.errors import InputError
from utils.files import written_beside

EVERY = 60.0  # seconds between saves, unless told


class StateFile:
    """One file with all that a run needs to go on; `interval` updates between saves, or at evaluations each minute."""

    def __init__(self, path: Path, interval: int | None = None):
        self.path, self.interval, self.last = path, interval, time.monotonic()

    def due(self, update: int, evaluated: bool) -> bool:
        """Whether to save after this update; the same on all processes."""
        if self.interval:
            return update % self.interval == 0
        return evaluated and processes.broadcast(time.monotonic() - self.last >= EVERY)

    def save(self, state: dict[str, Any]) -> None:
        """Write the state, with the random states of all processes.

        Raises:
            OSError: it cannot be written; the state saved before is as it was.
        """
        randomness = processes.all_gather(_random_state())
        if processes.is_main():
            with written_beside(self.path) as beside:
                torch.save({**state, "random": randomness}, beside)
        self.last = time.monotonic()

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The state saved last, its tensors on the device, and the random states as they were; None if there is none.

        Raises:
            InputError: the file is damaged, or was written by another number of processes.
        """
        if not self.path.is_file():
            return None
        try:
            state = torch.load(self.path, map_location=device, weights_only=True)
        except Exception as error:  # torch has many for a file that is not one of its own
            raise InputError(f"{self.path}: cannot be read; --overwrite starts afresh") from error
        saved = state.pop("random")
        if len(saved) != processes.world_size():
            raise InputError(f"{self.path}: of {len(saved)} processes, these are {processes.world_size()}")
        _set_random_state(saved[processes.rank()])
        return state


def _random_state() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state()
    state = {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest], "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
