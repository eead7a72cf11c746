"""Run stages in processes that stop themselves at a chosen moment, and check the outputs afterwards.

    process = start(folder, command, Stop(change=7, number=signal.SIGTERM))

All files of a stage get their final names, and lose them, by os.replace, os.rename, os.unlink and os.rmdir. Stopping
right before each of these calls, and right after the last one, covers all states of the disk, apart from files that are
being written. The checks below raise Fault.
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

import sklearn.metrics  # noqa: F401, which a stage imports late
import torch
from safetensors import safe_open

from scripts.report_data import checkpoints, collect
from utils.errors import InputError
from utils.files import read_json
from utils.folder import RunFolder, State
from utils.machine import hardware, versions
from utils.paths import CHECKPOINT, checkpoint_name, is_checkpoint
from utils.resume import StateFile
from utils.settings import FINISHED_AT, run_id

CHANGES = ("replace", "rename", "unlink", "remove", "rmdir")  # functions of os
STATUS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}  # of a process that was stopped
HANGING = 120  # seconds after which a process is considered to hang


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
    """A running stage."""

    process: multiprocessing.Process
    changes: Any  # shared integer: number of its changes of the outputs so far

    def wait(self, seconds: float = HANGING) -> int | None:
        """The exit status; None if it has not ended within these seconds."""
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
    """Run stages to their end, side by side; the first one's number of changes. Raises Fault if one fails or hangs."""
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
    """Run a stage in this process, with its output in a file, and count its changes of the outputs."""
    os.chdir(folder)
    output = open(folder / f"{command.script.__name__}.out", "a", encoding="utf-8")  # noqa: SIM115, until the process ends
    sys.stdout = sys.stderr = output
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell runs in the background
    for name in CHANGES:
        setattr(os, name, _counted(getattr(os, name), folder / "outputs", changes, stop))
    command.script.main(["--data_dir", "../datasets", *command.flags])


def _counted(change: Callable, outputs: Path, changes: Any, stop: Stop | None) -> Callable:
    """A function of os that counts its calls for existing paths in the outputs, and stops the process at `stop`."""

    def stop_if_planned(is_after: bool) -> None:
        if stop and stop.change == changes.value and stop.is_after is is_after:
            os.kill(os.getpid(), stop.number)

    @functools.wraps(change)
    def wrapped(path: Any, *rest: Any, **options: Any) -> None:
        # a folder's descriptor is passed by shutil.rmtree alone, which is called for outputs alone
        inside = options.get("dir_fd") is not None or outputs in Path(os.path.abspath(path)).parents
        if not inside or (options.get("dir_fd") is None and not os.path.lexists(path)):
            return change(path, *rest, **options)
        changes.value += 1
        stop_if_planned(is_after=False)
        change(path, *rest, **options)
        stop_if_planned(is_after=True)

    return wrapped


def check_whole(folder: Path) -> None:
    """Read every file with a final name, one without a dot in front; raises Fault if one cannot be read."""
    for path in (folder / "outputs").rglob("*"):
        is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if is_hidden or not path.is_file():
            continue
        try:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".safetensors":
                with safe_open(path, "pt") as tensors:
                    for name in tensors.keys():  # noqa: SIM118, no mapping
                        tensors.get_tensor(name)
        except Exception as error:
            raise Fault(f"{path} is there and cannot be read: {error}") from error


def results(folder: Path) -> dict[str, Any]:
    """All metrics, predictions and submissions by path, without the seconds they took."""
    outputs = folder / "outputs"
    contents = {path: _without_seconds(json.loads(path.read_text())) for path in outputs.rglob("metrics.json")}
    contents |= {path: path.read_bytes() for pattern in ("*.tsv", "*.npy") for path in outputs.rglob(pattern)}
    return {str(path.relative_to(folder)): content for path, content in contents.items()}


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        # "result" is the digest of a submission's checkpoint, which depends on the seconds, too
        names = [name for name in value if "seconds" not in name and name != "result"]
        return {name: _without_seconds(value[name]) for name in names}
    return value


def shown(folder: Path) -> dict[tuple, Any]:
    """The numbers that users see in the outputs: (run, checkpoint, seed, "report" or "metrics.json") -> numbers.

    "report" holds the rows and metrics of the report, "metrics.json" the training history in the file beside the
    checkpoints, under the seed of the args.json beside it.
    """
    outputs = folder / "outputs"
    numbers: dict[tuple, Any] = {}

    # in the report; collect refuses two checkpoints that would count as one
    try:
        reported = list(checkpoints([outputs]))
    except InputError:  # nothing is finished
        reported = []
    collect(reported)
    for checkpoint in reported:
        key = (str(checkpoint.folder.relative_to(folder)), checkpoint.name, checkpoint.args["seed"])
        rows = [replace(row, folder="", seconds=None) for row in collect([checkpoint])]
        numbers[*key, "report"] = (rows, _without_seconds(checkpoint.metrics))

    # beside the checkpoints
    for path in outputs.rglob("metrics.json"):
        if not is_checkpoint(path.parent.name) and not path.parent.name.startswith("."):
            metrics = read_json(path)
            seed = read_json(path.with_name("args.json")).get("seed")
            runs = {checkpoint_name(s): row for s, row in metrics.get("sparsity", {}).items()} or {CHECKPOINT: metrics}
            for name, result in runs.items():
                numbers[str(path.parent.relative_to(folder)), name, seed, "metrics.json"] = result.get("history")
    return numbers


def check_shown(folder: Path, truth: dict[tuple, Any]) -> None:
    """Compare all numbers that users see with those of undisturbed runs with the same settings.

    Raises Fault if a number differs, or if there was no run with its settings.
    """
    for key, numbers in shown(folder).items():
        if key not in truth or truth[key] != numbers:
            run_folder, name, seed, where = key
            raise Fault(f"{where} shows numbers of {run_folder}/{name} under seed {seed} that are not its own")


class Saved(NamedTuple):
    """Results on the disk when a process was stopped, which must not be computed again."""

    weights: dict[Path, int]  # finished checkpoint -> time of writing
    updates: dict[Path, int]  # log.txt of a run in training -> the update after which its state was saved
    logged: dict[Path, int]  # the same log.txt -> its length


def saved(folder: Path, undisturbed: Path, before: dict[Path, int], overwritten: tuple[str, ...] = ()) -> Saved:
    """The results on the disk after a stop that the resumed command must not compute again.

    Args:
        undisturbed: folder in which the same commands were not stopped; its settings are the expected ones.
        before: result of `written` before the command; those checkpoints may be overwritten.
        overwritten: checkpoints of a command with --overwrite, which starts afresh once it has finished.
    """
    weights, updates, logged = {}, {}, {}
    made = written(folder)
    for run_folder, name, settings in _settings(undisturbed):
        run = RunFolder(folder / run_folder)
        path = run_folder / name
        state_file = run.beside(name, "state")
        is_overwriting = bool(overwritten) and run.is_being_overwritten(list(overwritten), settings)
        if run.state(name, settings) in (State.FINISHED, State.DIVERGED):
            # finished, and not about to be overwritten by the command
            is_new = made.get(path) != before.get(path)
            if path in made and (not overwritten or (is_overwriting and is_new)):
                weights[path] = made[path]
        elif state_file.exists() and StateFile.run_id_of(state_file) == run_id(settings):
            # in training, with a state that this command has saved
            log = run_folder / "log.txt"
            updates[log] = torch.load(state_file, weights_only=True)["progress"]["update"]
            logged[log] = len((folder / log).read_text())
    return Saved(weights, updates, logged)


def check_not_recomputed(folder: Path, at_stop: Saved) -> None:
    """Check that the resumed command has used the results that were saved at the stop.

    Raises Fault if weights were written again, or training did not resume from its saved state.
    """
    made = written(folder)
    for path, written_at in at_stop.weights.items():
        if made.get(path) != written_at:
            raise Fault(f"{path} was finished, and was made again")
    for log, update in at_stop.updates.items():
        if f"going on after update {update}\n" not in (folder / log).read_text()[at_stop.logged[log] :]:
            raise Fault(f"{log}: training was saved after update {update}, and did not go on from there")


def check_end(folder: Path, undisturbed: Path) -> None:
    """Compare the outputs of finished commands with those of undisturbed ones.

    Raises Fault if a metric or a prediction differs, or a hidden file was left over.
    """
    actual = results(folder)
    expected = results(undisturbed)
    differing = sorted(path for path in {*expected, *actual} if expected.get(path) != actual.get(path))
    if differing:
        raise Fault(f"other results than undisturbed: {', '.join(differing)}")
    left_over = sorted(hidden(folder) - hidden(undisturbed))
    if left_over:
        raise Fault(f"left over: {', '.join(map(str, left_over))}")
    for submission in (folder / "outputs").rglob("*.tsv"):
        if not RunFolder(submission.parent).has_current_submission():
            raise Fault(f"{submission} is not of the checkpoint that metrics.json says")


def written(folder: Path) -> dict[Path, int]:
    """Checkpoint -> time at which its weights were written, in ns."""
    outputs = folder / "outputs"
    weights = [path for path in outputs.rglob("model.safetensors") if is_checkpoint(path.parent.name)]
    return {path.parent.relative_to(folder): path.stat().st_mtime_ns for path in weights}


def hidden(folder: Path) -> set[Path]:
    """Files and folders whose names begin with a dot: locks, states, stale files, and unfinished writes."""
    return {path.relative_to(folder) for path in (folder / "outputs").rglob(".*")}


def _settings(folder: Path) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """Run folder, name and settings of every finished checkpoint."""
    machine = {*versions(), *hardware("cpu"), "float32_products", FINISHED_AT}  # in args.json, but no settings
    for path in sorted((folder / "outputs").rglob("metrics.json")):
        if is_checkpoint(path.parent.name):
            run_folder = path.parent.parent
            name = path.parent.name
            settings = RunFolder(run_folder).settings(name)
            decisive = {key: value for key, value in settings.items() if key not in machine}
            yield run_folder.relative_to(folder), name, decisive
