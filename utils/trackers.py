"""Training curves in TensorBoard, Trackio or Weights & Biases, in addition to metrics.json; off by default."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils import processes
from utils.errors import InputError

TRACKERS = ("none", "tensorboard", "trackio", "wandb")


class Tracker:
    """The experiment tracker of one run; "none" does nothing. Of several processes, only the main one logs."""

    def __init__(self, report_to: str):
        """Choose the tracker, one of TRACKERS; raises InputError if its package is not installed."""
        if report_to != "none" and importlib.util.find_spec(report_to) is None:
            raise InputError(f"--report_to {report_to}: not installed: pip install {report_to}")
        self.report_to = report_to
        self.writer = None  # TensorBoard's SummaryWriter
        self.package = None  # trackio or wandb, which have the same interface

    def start(self, folder: Path, settings: dict[str, Any]) -> None:
        """Start a run named after its folder, and log its settings; TensorBoard's files are written to the folder."""
        if self.report_to == "none" or not processes.is_main():
            return
        config = {key: value if isinstance(value, int | float | str) else str(value) for key, value in settings.items()}
        if self.report_to == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter  # importable only if tensorboard is installed

            self.writer = SummaryWriter(str(folder / "tensorboard"))
            self.writer.add_hparams(config, metric_dict={})
        else:
            self.package = importlib.import_module(self.report_to)
            options = {"dir": str(folder)} if self.report_to == "wandb" else {}
            self.package.init(project="stark", name=folder.name, config=config, **options)

    def log_metrics_fn(self, name: str) -> Callable[[dict[str, float]], None]:
        """A function that logs one evaluation, an entry of the training history, under a checkpoint's name."""

        def log_metrics(entry: dict[str, float]) -> None:
            values = {f"{name}/{key}": value for key, value in entry.items()}
            if self.writer:
                for key, value in values.items():
                    self.writer.add_scalar(key, value, entry["update"])
                self.writer.flush()
            elif self.package:
                # without a step: updates of each checkpoint count from 1, and wandb drops steps that decrease
                self.package.log(values)

        return log_metrics

    def stop(self) -> None:
        """Finish the run of the tracker."""
        if self.writer:
            self.writer.close()
        elif self.package:
            self.package.finish()
