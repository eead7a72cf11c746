"""One run of a stage: settings, device, log and output folder; stage.py adds models and data.

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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from utils import log, processes
from utils.card import model_card
from utils.errors import InputError
from utils.files import lock, read_json, release, remove_part, write_json, write_text, written_beside
from utils.folder import RESULT, SUBMISSION, RunFolder, State, refuse_other_rows
from utils.machine import BusyProcessors, hardware, versions
from utils.paths import CHECKPOINT, script_name
from utils.seeds import set_seed
from utils.settings import FINISHED_AT, SETTINGS, differences, settings
from utils.tables import diverged_of, footnotes, table
from utils.tasks import find_task
from utils.trackers import Tracker

logger = logging.getLogger("stark")
# entries of args.json that decide how results are rounded
KIND_OF_MACHINE = ("hardware", "cpu_capability", "cpu_threads", "float32_products", "torch_version")
SHARED = ".shared.lock"  # held while writing the files beside the checkpoints, which runs of one sweep share


class Run:
    """One run of a stage and its output folder, whose files are written atomically.

    Of several processes, only the main one writes and logs.
    """

    def __init__(self, args: argparse.Namespace, folder: Path):
        """Seed the run, choose its device, start its log and check its folder; writes nothing.

        Raises:
            InputError: the folder holds a run with other settings, or files that no run has left, or a checkpoint that
                the run reads was selected on other rows of dev.
        """
        self.args = args
        self.task = find_task(args.task_name, args.data_dir)
        self.folder = RunFolder(folder)
        self.names = [CHECKPOINT]  # names of the checkpoints that this run makes
        self.script = script_name(args.stage)

        # times and facts for the results
        self.has_started = False
        self.start_time = time.perf_counter()
        self.saved_time = self.start_time  # of the checkpoint before
        self.facts: dict[str, Any] = {}  # utils.metrics.baseline of the rows that results are reported on

        # from here on errors and warnings are logged
        log.start()
        self.device = processes.start(args.use_cpu)
        self.machine = {**versions(), **hardware(self.device.type)}
        self.busy_processors = BusyProcessors()
        set_seed(args.seed)
        if processes.world_size() > 1 and "num_train_epochs" not in args:
            raise InputError(f"{self.script}: runs on one process, found {processes.world_size()}: no torchrun")

        # settings that contradict the folder or the checkpoints that are read
        self.settings = settings(args)
        self.tracker = Tracker(getattr(args, "report_to", "none"))
        refuse_other_rows(args, self.settings)
        self._refuse_other_settings()

    def _refuse_other_settings(self) -> None:
        conflict = self.folder.conflict(self.settings)
        if conflict and not self.args.overwrite:
            raise InputError(f"{self.folder.path}: holds {conflict}; --overwrite starts afresh")

    def is_trained(self, name: str) -> bool:
        """Whether this checkpoint is finished and was made with these settings, by this run or an earlier one."""
        return self.folder.state(name, self.settings) in (State.FINISHED, State.DIVERGED)

    def is_finished(self) -> bool:
        """Whether all checkpoints of this run are finished and were made with these settings."""
        starts_afresh = self.args.overwrite and not self._is_overwriting()
        return processes.broadcast(not starts_afresh and all(map(self.is_trained, self.names)))

    def _is_overwriting(self) -> bool:
        """Whether the same command with --overwrite was stopped before it had finished."""
        return self.folder.is_being_overwritten(self.names, self.settings)

    def start(self) -> None:
        """Make and lock the folder, write the settings and open the log; call it when all input has been read.

        Raises:
            InputError: another process is writing one of the checkpoints.
        """
        path = self.folder.path
        if processes.is_main():
            path.mkdir(parents=True, exist_ok=True)

            # the checkpoints of this run are its own until it ends
            for name in self.names:
                lock(self.folder.beside(name, "lock"))
                self.folder.recover(name)

            # other runs of a sweep may start in this folder at the same moment
            lock(path / SHARED, wait=True)
            if self.args.overwrite and not self._is_overwriting():
                self.folder.overwrite(self.names, self.settings)
            log.to_file(path / "log.txt")
            self._log_other_machine()
            self._write_settings(path)
            release(path / SHARED)
        processes.barrier()

        self.tracker.start(path, self.settings)
        count = f" x {processes.world_size()}" if processes.world_size() > 1 else ""
        logger.info("%s on %s%s, writing to %s", self.script, self.device, count, path)
        self.has_started = True
        self.saved_time = time.perf_counter()

    def _write_settings(self, folder: Path, **more: str) -> None:
        write_json(folder / SETTINGS, {**self.settings, **self.machine, **more})

    def _log_other_machine(self) -> None:
        """Say it if a state that this run goes on from was saved on another kind of machine."""
        if not any(self.folder.beside(name, "state").exists() for name in self.names):
            return
        before = read_json(self.folder.path / SETTINGS)
        changes = [
            f"{key} {before[key]}, now {self.machine[key]}"
            for key in KIND_OF_MACHINE
            if key in before and before[key] != self.machine.get(key)
        ]
        if changes:
            logger.warning("begun on another kind of machine, results may differ in rounding: %s", "; ".join(changes))

    def save(self, name: str, *parts: Any, result: dict, write: Callable[[Path], None] | None = None) -> None:
        """Write a checkpoint atomically: model and tokenizer, settings, metrics and model card.

        Args:
            name: of the checkpoint.
            parts: objects with save_pretrained(folder); the first is the model.
            result: content of its metrics.json, to which rows and seconds are added.
            write: called with the folder, to write further files.
        """
        result = {**result, **self.facts, "seconds": round(time.perf_counter() - self.saved_time, 1)}
        if processes.is_main():
            with written_beside(self.folder.path / name) as beside:
                for part in parts:
                    part.save_pretrained(beside)
                if write:
                    write(beside)
                write_json(beside / RESULT, result)
                self._write_settings(beside, **{FINISHED_AT: datetime.now(UTC).isoformat()})
                card = model_card(self.folder.path.name, name, self.settings, parts[0].config, result)
                write_text(beside / "README.md", card)
            self.folder.beside(name, "state").unlink(missing_ok=True)
        self.saved_time = time.perf_counter()
        processes.barrier()

    def results(self) -> dict[str, dict[str, Any]]:
        """Name -> metrics.json of all finished checkpoints with this run's settings, by this run or others of a sweep.

        Takes the lock of the files beside the checkpoints until the run ends, so that the last run of a sweep to write
        them has seen all results.
        """
        if processes.is_main():
            with contextlib.suppress(PermissionError):  # another user's folder: nothing will be written
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
        """Write the files derived from the checkpoints, where they are missing, and print the table of results.

        Args:
            metrics: content of metrics.json.
            header: of the table.
            rows: of the table.
            notes: lines below the table.
            submit: predicts the test set and writes the submission file; None without --do_test.

        Raises:
            FloatingPointError: training diverged, and the best weights before that were saved.
            InputError: raised by `submit`.
        """
        # metrics.json beside the checkpoints
        path = self.folder.path
        results = self.folder.results(self.settings)
        if processes.is_main():
            self._write_metrics(metrics, results)

        # the table, with its footnotes
        if self.has_started:
            logger.info("done in %.1f s", time.perf_counter() - self.start_time)
        else:
            logger.info("%s: finished before with the same arguments; --overwrite starts afresh", path)
        logger.info("\n%s", table(header, rows))
        for line in [*footnotes(results), *notes]:
            logger.info("%s", line)

        # the submission file, and no files that stopped runs left behind
        if submit:
            submit()
        if processes.is_main():
            self._tidy()
        self.tracker.stop()
        logger.info("written to %s", path)

        # all is written: a run that diverged still exits with an error
        diverged = diverged_of({name: result for name, result in results.items() if name in self.names})
        if diverged:
            raise FloatingPointError(f"{path}: {diverged}; the best weights before are kept, --overwrite starts afresh")

    def _tidy(self) -> None:
        """Remove hidden files of finished checkpoints; the first one's stale file, which stands for all, goes last.

        And halves of the files beside them, whose lock is held until the run ends.
        """
        for name in reversed(self.names):
            # another process may be replacing the checkpoint, or the folder be another user's
            with contextlib.suppress(InputError, PermissionError):
                lock(self.folder.beside(name, "lock"))
                self.folder.tidy(name)
        with contextlib.suppress(PermissionError):
            for name in (RESULT, SETTINGS):
                remove_part(self.folder.path / name)

    def _write_metrics(self, metrics: dict[str, Any], results: dict[str, dict]) -> None:
        """Write metrics.json and args.json beside the checkpoints, unless they are up to date."""
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
