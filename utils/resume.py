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
    """One file with all that a run needs to go on; `interval` updates between saves, or at evaluations each minute.

    The file carries the `run_id` of the run that wrote it, such as a digest of its settings: no other goes on from it.
    """

    def __init__(self, path: Path, interval: int | None = None, run_id: str = ""):
        self.path, self.interval, self.run_id, self.last = path, interval, run_id, time.monotonic()

    @staticmethod
    def of_run(path: Path) -> str | None:
        """The run_id of the run that wrote a state file, without reading its tensors; None if there is no such file.

        Raises:
            InputError: the file is damaged.
        """
        return _read(path, mmap=True).get("run_id", "") if path.is_file() else None

    def due(self, update: int, evaluated: bool) -> bool:
        """Whether to save after this update; the same on all processes."""
        if self.interval:
            return update % self.interval == 0
        return evaluated and processes.broadcast(time.monotonic() - self.last >= EVERY)

    def save(self, state: dict[str, Any], device: torch.device) -> None:
        """Write the state of a run on this device, with the random states of all processes.

        Raises:
            OSError: it cannot be written; the state saved before is as it was.
        """
        randomness = processes.all_gather(_random_state(device))
        if processes.is_main():
            with written_beside(self.path) as beside:
                torch.save({**state, "random": randomness, "run_id": self.run_id}, beside)
        self.last = time.monotonic()

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The state that this run saved last, its tensors on the device; the random states become what they were.

        None if there is none, or only another run's.

        Raises:
            InputError: the file is damaged, or was written by another number of processes.
        """
        if self.of_run(self.path) != self.run_id:
            return None
        state = _read(self.path, map_location=device)
        saved = state.pop("random")
        if len(saved) != processes.world_size():
            raise InputError(f"{self.path}: of {len(saved)} processes, these are {processes.world_size()}")
        _set_random_state(saved[processes.rank()], device)
        return state


def _read(path: Path, **options: Any) -> dict[str, Any]:
    try:
        state = torch.load(path, weights_only=True, **options)
        return {**state, "random": state["random"]}  # or it is no state
    except Exception as error:  # torch has many for a file that is not one of its own
        raise InputError(f"{path}: cannot be read; --overwrite starts afresh") from error


def _random_state(device: torch.device) -> dict[str, Any]:
    """Of Python, numpy and torch; of a GPU only where the run computes on it, as asking it takes some of its memory."""
    name, keys, *rest = np.random.get_state()
    state = {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest], "torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: dict[str, Any], device: torch.device) -> None:
    random.setstate(state["python"])
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
