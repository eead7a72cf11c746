"""One run: its settings and its output folder, from the lock to the table at the end; stage.py has what it computes.

run = Run(args, Path("outputs/finetune/ft_rte"))
if not run.is_finished():
    run.start()
    ...  # train
    run.save("ckpt", model, tokenizer, result=result)
run.finish(metrics, header, rows)
"""

import argparse
import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from utils import log, processes
from utils.card import model_card
from utils.errors import InputError
from utils.files import lock, read_json, release, write_json, write_text, written_beside
from utils.folder import RESULT, SUBMISSION, RunFolder, State, refuse_other_rows
from utils.machine import hardware, versions
from utils.paths import CHECKPOINT, script_name
from utils.seeds import set_seed
from utils.settings import SETTINGS, differences, settings
from utils.tables import diverged_of, footnotes, table
from utils.tasks import TASKS
from utils.trackers import Tracker

logger = logging.getLogger("stark")
SHARED = ".shared.lock"  # held while writing what the processes of a spread sweep share


class Run:
    """The output folder of one run of a stage; files appear complete or not at all.

    Of several processes, the main one writes and logs.
    """

    def __init__(self, args: argparse.Namespace, folder: Path):
        """Seed, device and log.

        Raises:
            InputError: the folder holds a run with other settings, or a checkpoint that is to be read was made with
                other rows of dev.
        """
        self.args = args
        self.task = TASKS[args.task_name]
        self.folder = RunFolder(folder)
        self.names = [CHECKPOINT]  # of the checkpoints that this run makes
        self.script = script_name(args.stage)
        self.has_started = False
        self.started = time.perf_counter()
        self.saved = self.started
        self.facts: dict[str, Any] = {}  # of the rows that results are reported on
        log.start()
        self.device = processes.start(args.use_cpu)
        set_seed(args.seed)
        if processes.world_size() > 1 and "num_train_epochs" not in args:
            raise InputError(f"{self.script}: runs on one process, found {processes.world_size()}: no torchrun")
        self.settings = settings(args)
        self.tracker = Tracker(getattr(args, "report_to", "none"))
        refuse_other_rows(args, self.settings)
        self._refuse_another_run()

    def _refuse_another_run(self) -> None:
        changes = self.folder.conflicts(self.settings)
        if changes and not self.args.overwrite:
            raise InputError(
                f"{self.folder.path}: holds a run with other arguments: {'; '.join(changes)}; --overwrite starts afresh"
            )

    def is_trained(self, name: str) -> bool:
        """Whether a run with these settings has made this checkpoint."""
        return self.folder.state(name, self.settings) in (State.FINISHED, State.DIVERGED)

    def is_finished(self) -> bool:
        """Whether all checkpoints of this run are there, made with these settings, so that nothing is to be trained."""
        starts_afresh = self.args.overwrite and not self._goes_on()
        return processes.broadcast(not starts_afresh and all(map(self.is_trained, self.names)))

    def _goes_on(self) -> bool:
        """Whether the same command with --overwrite was stopped before its end."""
        return self.folder.is_being_overwritten(self.names[0], self.settings)

    def start(self) -> None:
        """Take the folder for this run's checkpoints; when all input is read, so that bad input leaves no trace.

        Raises:
            InputError: another process is writing one of them.
        """
        path = self.folder.path
        if processes.is_main():
            path.mkdir(parents=True, exist_ok=True)
            for name in self.names:
                lock(self.folder.beside(name, "lock"))
                self.folder.recover(name)
            lock(path / SHARED, wait=True)  # parts of a sweep may begin at the same moment
            if self.args.overwrite and not self._goes_on():
                self.folder.overwrite(self.names, self.settings)
            self._write_settings(path)
            release(path / SHARED)
            log.to_file(path / "log.txt")
        processes.barrier()
        self.tracker.start(path, self.settings)
        shared = f" x {processes.world_size()}" if processes.world_size() > 1 else ""
        logger.info("%s on %s%s, writing to %s", self.script, self.device, shared, path)
        self.has_started, self.saved = True, time.perf_counter()

    def _write_settings(self, folder: Path) -> None:
        write_json(folder / SETTINGS, {**self.settings, **versions(), **hardware(self.device.type)})

    def save(self, name: str, *parts: Any, result: dict, write: Callable[[Path], None] | None = None) -> None:
        """A checkpoint, whole: each part (model, tokenizer) by its save_pretrained, settings, result, model card.

        Args:
            result: what its training came to.
            write: adds files of its own.
        """
        result = {**result, **self.facts, "seconds": round(time.perf_counter() - self.saved, 1)}
        if processes.is_main():
            with written_beside(self.folder.path / name) as beside:
                for part in parts:
                    part.save_pretrained(beside)
                if write:
                    write(beside)
                write_json(beside / RESULT, result)
                self._write_settings(beside)
                card = model_card(self.folder.path.name, name, self.settings, parts[0].config, result)
                write_text(beside / "README.md", card)
            self.folder.beside(name, "state").unlink(missing_ok=True)
        self.saved = time.perf_counter()
        processes.barrier()

    def results(self) -> dict[str, dict[str, Any]]:
        """What each checkpoint made with this run's settings came to, by name, whichever process made it.

        From here to its end this process is the only one to write beside the checkpoints, so that the last one sees
        all.
        """
        if processes.is_main():
            with contextlib.suppress(PermissionError):  # somebody else's folder, to which nothing is to be written
                lock(self.folder.path / SHARED, wait=True)
        processes.barrier()
        return self.folder.results(self.settings)

    def finish(
        self,
        metrics: dict[str, Any],
        header: Iterable[str],
        rows: Iterable[Iterable[Any]],
        notes: Iterable[str] = (),
        submit: Callable[[], None] | None = None,
    ) -> None:
        """Write what is derived from the checkpoints, as far as it is missing, and print the table.

        Args:
            metrics: for metrics.json.
            header, rows: of the table.
            notes: lines below it.
            submit: predicts the test set and writes its file; None if that was not asked for.

        Raises:
            FloatingPointError: training diverged, so that what is kept is the best so far.
            InputError: the test set is to be predicted, and the best checkpoint's weights were deleted.
        """
        path = self.folder.path
        results = self.folder.results(self.settings)
        if processes.is_main():
            self._write_metrics(metrics, results)
        if self.has_started:
            logger.info("done in %.1f s", time.perf_counter() - self.started)
        else:
            logger.info("%s: finished before with the same arguments; --overwrite starts afresh", path)
        logger.info("\n%s", table(header, rows))
        for line in [*footnotes(results), *notes]:
            logger.info("%s", line)
        if submit:
            submit()
        if processes.is_main():
            self._tidy()
        self.tracker.stop()
        logger.info("written to %s", path)
        if diverged := diverged_of({name: result for name, result in results.items() if name in self.names}):
            raise FloatingPointError(f"{path}: {diverged}; the best weights before are kept, --overwrite starts afresh")

    def _tidy(self) -> None:
        for name in reversed(self.names):  # the mark of the first one stands for all
            # another process may be making it again, or the folder be somebody else's
            with contextlib.suppress(InputError, PermissionError):
                lock(self.folder.beside(name, "lock"))
                self.folder.tidy(name)

    def _write_metrics(self, metrics: dict[str, Any], results: dict[str, dict]) -> None:
        """Write metrics.json and args.json beside the checkpoints, unless they say so already."""
        path = self.folder.path
        before = read_json(path / RESULT)
        seconds = round(sum(result.get("seconds", 0.0) for result in results.values()), 1)
        content = {**metrics, "diverged": diverged_of(results), "seconds": seconds}
        if SUBMISSION in before:
            content[SUBMISSION] = before[SUBMISSION]
        if before != json.loads(json.dumps(content)):
            write_json(path / RESULT, content)
        if differences(read_json(path / SETTINGS), self.settings):
            self._write_settings(path)
