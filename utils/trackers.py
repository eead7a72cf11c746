"""Training curves in TensorBoard, Trackio or Weights & Biases beside metrics.json; off by default."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils import processes
from utils.errors import InputError

TRACKERS = ("none", "tensorboard", "trackio", "wandb")


class Tracker:
    """One run's curves; with "none" it does nothing. Of several processes, the main one reports for all."""

    def __init__(self, report_to: str):
        """Raises InputError if the package is not installed."""
        if report_to != "none" and importlib.util.find_spec(report_to) is None:
            raise InputError(f"--report_to {report_to}: not installed: pip install {report_to}")
        self.report_to = report_to
        self.writer = self.package = None  # TensorBoard's, or another tracker, all of which speak wandb's language

    def start(self, folder: Path, settings: dict[str, Any]) -> None:
        """Begin a run named after its folder, which TensorBoard's files go to."""
        if self.report_to == "none" or not processes.is_main():
            return
        config = {key: value if isinstance(value, int | float | str) else str(value) for key, value in settings.items()}
        if self.report_to == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter  # which is there only if TensorBoard is

            self.writer = SummaryWriter(str(folder / "tensorboard"))
            self.writer.add_hparams(config, metric_dict={})
        else:
            self.package = importlib.import_module(self.report_to)
            place = {"dir": str(folder)} if self.report_to == "wandb" else {}
            self.package.init(project="stark", name=folder.name, config=config, **place)

    def curves(self, name: str) -> Callable[[dict[str, float]], None]:
        """What takes each evaluation of a training run, an entry of its history; `name` is the checkpoint's."""

        def report(entry: dict[str, float]) -> None:
            values = {f"{name}/{key}": value for key, value in entry.items()}
            if self.writer:
                for key, value in values.items():
                    self.writer.add_scalar(key, value, entry["update"])
                self.writer.flush()
            elif self.package:
                self.package.log(values)  # steps of all checkpoints count from 0; wandb drops what follows a higher one

        return report

    def stop(self) -> None:
        """Write what is left."""
        if self.writer:
            self.writer.close()
        elif self.package:
            self.package.finish()
