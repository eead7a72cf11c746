"""A stage in a process of its own that stops itself at a chosen moment, and what has to hold afterwards.

    process = start(folder, command, Stop(change=7, number=signal.SIGTERM))

All that a stage leaves on the disk gets its final name, and loses it, by os.replace, os.rename, os.unlink and os.rmdir.
Stopping right before each of these calls, and right after the last one, is stopping at every moment whose traces differ
in more than files that are still being written. What the checks below find wrong, they raise as Fault.
"""

import functools
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from scripts.report_data import checkpoints, collect
from utils.errors import InputError
from utils.files import read_json
from utils.folder import RunFolder, State
from utils.machine import hardware, versions
from utils.paths import CHECKPOINT, checkpoint_name, is_checkpoint
from utils.resume import StateFile
from utils.settings import run_id

CHANGES = ("replace", "rename", "unlink", "remove", "rmdir")  # functions of os
STATUS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}  # of a process that was stopped
HANGING = 120  # seconds after which a process is taken to wait for ever


class Fault(Exception):
    """Something that must hold after a stop does not; the message says what."""


class Command(NamedTuple):
    """A stage and its flags."""

    script: ModuleType
    flags: list[str]


class Stop(NamedTuple):
    """The moment at which a process sends itself a signal."""

    change: int  # right before this change of the outputs, counted from 1
    number: signal.Signals
    is_after: bool = False  # right after the change instead

    def __str__(self) -> str:
        return f"{self.number.name} {'after' if self.is_after else 'before'} change {self.change}"


class Process(NamedTuple):
    """A stage that runs."""

    process: multiprocessing.Process
    changes: Any  # a shared number: how often it has changed the outputs so far

    def wait(self, seconds: float = HANGING) -> int | None:
        """Exit status; None if it has not ended within these seconds."""
        self.process.join(seconds)
        return self.process.exitcode

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.join()


def start(folder: Path, command: Command, stop: Stop | None = None) -> Process:
    """Start a stage in this folder, forked so that it begins with all packages imported."""
    context = multiprocessing.get_context("fork")
    changes = context.Value("i", 0, lock=False)
    process = context.Process(target=_run, args=(folder, command, changes, stop))
    process.start()
    return Process(process, changes)


def run(folder: Path, *commands: Command) -> int:
    """Run stages side by side until they end by themselves; how often the first one has changed the outputs.

    Raises:
        Fault: one did not end, or with another exit status than 0.
    """
    started = [start(folder, command) for command in commands]
    for command, process in zip(commands, started, strict=True):
        status = process.wait()
        if status is None:
            process.kill()
        if status:
            name = command.script.__name__
            raise Fault(f"{name} left with status {status}: {(folder / f'{name}.out').read_text()[-2000:]}")
        if status is None:
            raise Fault(f"{command.script.__name__} did not end within {HANGING} s")
    return started[0].changes.value


def _run(folder: Path, command: Command, changes: Any, stop: Stop | None) -> None:
    os.chdir(folder)
    output = open(folder / f"{command.script.__name__}.out", "a", encoding="utf-8")  # noqa: SIM115, until the process ends
    sys.stdout = sys.stderr = output
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored by what runs in the background
    for name in CHANGES:
        setattr(os, name, _counted(getattr(os, name), folder / "outputs", changes, stop))
    command.script.main(["--data_dir", "../datasets", *command.flags])


def _counted(change: Callable, outputs: Path, changes: Any, stop: Stop | None) -> Callable:
    """A function of os that counts how often it is called for what there is in the outputs, and stops the process."""

    def stop_here(is_after: bool) -> None:
        if stop and stop.change == changes.value and stop.is_after is is_after:
            os.kill(os.getpid(), stop.number)

    @functools.wraps(change)
    def wrapped(path: Any, *rest: Any, **options: Any) -> None:
        # a folder's descriptor comes from shutil.rmtree alone
        inside = options.get("dir_fd") is not None or outputs in Path(os.path.abspath(path)).parents
        if not inside or (options.get("dir_fd") is None and not os.path.lexists(path)):
            return change(path, *rest, **options)
        changes.value += 1
        stop_here(is_after=False)
        change(path, *rest, **options)
        stop_here(is_after=True)

    return wrapped


def check_whole(folder: Path) -> None:
    """Read every file that has its final name.

    Raises:
        Fault: one cannot be read.
    """
    for path in (folder / "outputs").rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file():
            continue
        try:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".safetensors":
                with safe_open(path, "pt") as tensors:
                    [tensors.get_tensor(name) for name in tensors.keys()]  # noqa: SIM118, no mapping
        except Exception as error:
            raise Fault(f"{path} is there and cannot be read: {error}") from error


def results(folder: Path) -> dict[str, Any]:
    """All metrics and submissions by path, without the seconds they took."""
    outputs = folder / "outputs"
    found = {path: _without_seconds(json.loads(path.read_text())) for path in outputs.rglob("metrics.json")}
    found |= {path: path.read_text() for path in outputs.rglob("*.tsv")}
    return {str(path.relative_to(folder)): content for path, content in found.items()}


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        # a submission names its checkpoint by a digest, of its seconds too
        kept = {key: item for key, item in value.items() if "seconds" not in key and key != "result"}
        return {key: _without_seconds(item) for key, item in kept.items()}
    return value


def shown(folder: Path) -> dict[tuple, Any]:
    """What is to be read in the outputs under which settings: (run, checkpoint, seed, where) -> numbers.

    In the report a row, its metrics and all; in the metrics.json beside checkpoints, with the args.json beside it, the
    course of training.
    """
    outputs = folder / "outputs"
    found: dict[tuple, Any] = {}
    try:
        reported = list(checkpoints([outputs]))
    except InputError:  # nothing is finished
        reported = []
    collect(reported)  # which refuses two that would count as one
    for checkpoint in reported:
        key = (str(checkpoint.folder.relative_to(folder)), checkpoint.name, checkpoint.args["seed"])
        rows = [replace(row, folder="", seconds=None) for row in collect([checkpoint])]
        found[*key, "report"] = (rows, _without_seconds(checkpoint.metrics))
    for path in outputs.rglob("metrics.json"):
        if not is_checkpoint(path.parent.name) and not path.parent.name.startswith("."):
            metrics, seed = read_json(path), read_json(path.with_name("args.json")).get("seed")
            runs = {checkpoint_name(s): row for s, row in metrics.get("sparsity", {}).items()} or {CHECKPOINT: metrics}
            for name, result in runs.items():
                found[str(path.parent.relative_to(folder)), name, seed, "metrics.json"] = result.get("history")
    return found


def check_shown(folder: Path, truth: dict[tuple, Any]) -> None:
    """Compare all numbers that are to be seen with those of undisturbed runs of the same settings.

    Raises:
        Fault: one differs, or is of settings that were never run.
    """
    for key, numbers in shown(folder).items():
        if key not in truth or truth[key] != numbers:
            run_folder, name, seed, where = key
            raise Fault(f"{where} shows numbers of {run_folder}/{name} under seed {seed} that are not its own")


class Saved(NamedTuple):
    """What lay on the disk when a process was stopped, and must not be computed again."""

    weights: dict[Path, int]  # of finished checkpoints: when they were written
    updates: dict[Path, int]  # log of a run whose training had begun: the update after which its state was saved
    logged: dict[Path, int]  # how long these logs were


def saved(folder: Path, undisturbed: Path, before: dict[Path, int], overwritten: tuple[str, ...] = ()) -> Saved:
    """Look at the disk after a stop.

    Args:
        undisturbed: a folder in which the same commands were not stopped; its settings are the right ones.
        before: what `written` had said before the command; what it is to overwrite is not worth keeping.
        overwritten: the checkpoints of a command with --overwrite; once it has come to its end, it would start afresh.
    """
    weights, updates, logged = {}, {}, {}
    made = written(folder)
    for run_folder, name, settings in _settings(undisturbed):
        here = RunFolder(folder / run_folder)
        path, state_file = run_folder / name, here.beside(name, "state")
        is_marked = any(here.is_being_overwritten(other, settings) for other in overwritten)
        if here.state(name, settings) in (State.FINISHED, State.DIVERGED):
            is_new = made.get(path) != before.get(path)
            if path in made and (is_marked and is_new or not overwritten):
                weights[path] = made[path]
        elif state_file.exists() and StateFile.run_id_of(state_file) == run_id(settings):
            log = run_folder / "log.txt"
            updates[log] = torch.load(state_file, weights_only=True)["progress"]["update"]
            logged[log] = len((folder / log).read_text())
    return Saved(weights, updates, logged)


def check_kept(folder: Path, at_stop: Saved) -> None:
    """See that the command, which has come to its end now, computed nothing again.

    Raises:
        Fault: weights were written again, or training did not go on from its saved state.
    """
    made = written(folder)
    for path, moment in at_stop.weights.items():
        if made.get(path) != moment:
            raise Fault(f"{path} was finished, and was made again")
    for log, update in at_stop.updates.items():
        if f"going on after update {update}\n" not in (folder / log).read_text()[at_stop.logged[log] :]:
            raise Fault(f"{log}: training was saved after update {update}, and did not go on from there")


def check_end(folder: Path, undisturbed: Path) -> None:
    """Compare what there is in the end with what undisturbed commands leave.

    Raises:
        Fault: a metric or a prediction is another one, or a file or a lock was left over.
    """
    found, wanted = results(folder), results(undisturbed)
    if differing := sorted(path for path in {*wanted, *found} if wanted.get(path) != found.get(path)):
        raise Fault(f"other results than undisturbed: {', '.join(differing)}")
    if left := sorted(hidden(folder) - hidden(undisturbed)):
        raise Fault(f"left over: {', '.join(map(str, left))}")
    for metrics in (folder / "outputs").rglob("*.tsv"):
        if not RunFolder(metrics.parent).has_current_submission():
            raise Fault(f"{metrics} is not of the checkpoint that metrics.json says")


def written(folder: Path) -> dict[Path, int]:
    """When the weights of each checkpoint were written."""
    outputs = folder / "outputs"
    found = [path for path in outputs.rglob("model.safetensors") if is_checkpoint(path.parent.name)]
    return {path.parent.relative_to(folder): path.stat().st_mtime_ns for path in found}


def hidden(folder: Path) -> set[Path]:
    """Files and folders whose names begin with a dot: locks, states, marks, and what was to be renamed."""
    return {path.relative_to(folder) for path in (folder / "outputs").rglob(".*")}


def _settings(folder: Path) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """Run, checkpoint and settings of all that there is."""
    machine = {*versions(), *hardware("cpu")}  # which args.json has, too, and which decides no result
    for path in sorted((folder / "outputs").rglob("metrics.json")):
        if is_checkpoint(path.parent.name):
            run_folder, name = path.parent.parent, path.parent.name
            settings = RunFolder(run_folder).settings(name)
            decisive = {key: value for key, value in settings.items() if key not in machine}
            yield run_folder.relative_to(folder), name, decisive
