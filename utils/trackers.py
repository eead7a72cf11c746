"""Training curves in TensorBoard, Trackio or Weights & Biases beside metrics.json, by accelerate; off by default."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from utils.errors import InputError

TRACKERS = ("none", "tensorboard", "trackio", "wandb")


class Tracker:
    """One run's curves; with "none" it does nothing."""

    def __init__(self, report_to: str):
        """Raises InputError if the package is not installed."""
        if report_to != "none" and importlib.util.find_spec(report_to) is None:
            raise InputError(f"--report_to {report_to}: not installed: pip install {report_to}")
        self.report_to, self.accelerator = report_to, None

    def start(self, folder: Path, settings: dict[str, Any]) -> None:
        """Begin a run named after its folder, which TensorBoard's files go to; several processes report as one."""
        if self.report_to == "none":
            return
        self.accelerator = Accelerator(log_with=self.report_to, project_dir=folder)
        named = {"wandb": {"name": folder.name, "dir": str(folder)}, "trackio": {"name": folder.name}}
        config = {key: value if isinstance(value, int | float | str) else str(value) for key, value in settings.items()}
        project = "tensorboard" if self.report_to == "tensorboard" else "stark"  # the former is a folder
        self.accelerator.init_trackers(project, config=config, init_kwargs=named)

    def curves(self, name: str) -> Callable[[dict[str, float]], None]:
        """What takes each evaluation of a training run, an entry of its history; `name` is the checkpoint's."""

        def report(entry: dict[str, float]) -> None:
            if self.accelerator:
                values = {f"{name}/{key}": value for key, value in entry.items()}
                # the updates of one run's checkpoints all count from 0; wandb drops what comes after a higher step
                step = entry["update"] if self.report_to == "tensorboard" else None
                self.accelerator.log(values, step=step)

        return report

    def stop(self) -> None:
        """Write what is left."""
        if self.accelerator:
            self.accelerator.end_training()
