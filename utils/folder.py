"""The folder of a run: which checkpoints it holds, and in which state each of them is.

    folder = RunFolder(Path("outputs/rewind/layer_dropped/kd_4_rte_0.5"))
    folder.state("ckpt_30", settings)     # absent, in training, finished, diverged, stale, or made with other settings
    folder.results()                      # metrics.json of each finished checkpoint, by name

A checkpoint folder is complete: weights, configuration, vocabulary, model card, its settings (args.json), metrics
(metrics.json) and predictions (predictions.npy), renamed into place in one step. The args.json, metrics.json and
submission file beside it are derived from it. Its weights may be deleted to save space; the result stays valid. Hidden
files beside it hold the progress:

    .ckpt.state     state of an unfinished training, written by utils.resume
    .ckpt.stale     --overwrite has begun: settings of the new run, and digest of the checkpoint that it replaces
    .ckpt.lock      locked by the process that writes the checkpoint
"""

import argparse
import enum
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from utils.errors import InputError
from utils.files import fingerprint, is_locked, read_json, recover, remove_part, write_json
from utils.paths import CHECKPOINT, checkpoint_name, is_checkpoint, sparsity_of
from utils.resume import StateFile
from utils.settings import SETTINGS, differences, of_a_stage, other_rows, run_id
from utils.tasks import task_of

RESULT = "metrics.json"
SUBMISSION = "submission"  # key of the metrics.json beside the checkpoints; its value is `submission_of`


class State(enum.StrEnum):
    """State of a checkpoint in its run folder."""

    ABSENT = "absent"
    IN_TRAINING = "in training"
    FINISHED = "finished"
    DIVERGED = "diverged"  # finished, with the best weights from before the loss was infinite or NaN
    STALE = "being made again"
    OTHER = "made with other settings"


class RunFolder:
    """The folder of one run, with one checkpoint, or one for each teacher sparsity."""

    def __init__(self, path: Path):
        self.path = path

    def beside(self, name: str, kind: str) -> Path:
        """Path of the hidden file of a checkpoint; `kind` is state, stale or lock."""
        return self.path / f".{name}.{kind}"

    def names(self) -> list[str]:
        """Names of all checkpoints that exist or have been begun, by teacher sparsity; other folders are ignored."""
        if not self.path.is_dir():
            return []
        names = set()
        for path in self.path.iterdir():
            if path.is_dir():
                names.add(path.name)
            elif path.suffix in (".state", ".stale"):
                names.add(path.stem.removeprefix("."))
        return sorted(filter(is_checkpoint, names), key=lambda name: -1 if name == CHECKPOINT else sparsity_of(name))

    def settings(self, name: str) -> dict[str, Any]:
        """The settings that a checkpoint was made with, from its args.json; {} if there is none.

        Checkpoints of earlier versions have no args.json; theirs is the one in the run folder.
        """
        settings = read_json(self.path / name / SETTINGS)
        if not settings and (self.path / name / RESULT).is_file():
            settings = read_json(self.path / SETTINGS)
        return settings

    def is_stale(self, name: str) -> bool:
        """Whether --overwrite has begun to replace a checkpoint and has not done so yet."""
        if not self.beside(name, "stale").exists():
            return False
        replaced = self._stale_record(name).get("replaces")
        return replaced is None or replaced == self.identity(name)

    def result(self, name: str) -> dict[str, Any]:
        """Content of a checkpoint's metrics.json; {} if it is not finished, or stale."""
        return {} if self.is_stale(name) else read_json(self.path / name / RESULT)

    def results(self, settings: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
        """Name -> result of all finished checkpoints, by ascending teacher sparsity.

        Args:
            settings: only checkpoints made with these settings; None for all.
        """
        results = {name: self.result(name) for name in self.names()}
        return {
            name: result
            for name, result in results.items()
            if result and (settings is None or not differences(self.settings(name), settings))
        }

    def state(self, name: str, settings: dict[str, Any]) -> State:
        """State of a checkpoint, as a run with these settings sees it."""
        result = self.result(name)
        if result:
            if differences(self.settings(name), settings):
                return State.OTHER
            return State.DIVERGED if result.get("diverged") else State.FINISHED
        if self.is_stale(name):
            return State.STALE
        return State.IN_TRAINING if self.beside(name, "state").exists() else State.ABSENT

    def history(self, name: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
        """The evaluations so far of a training with these settings, finished or not; [] if there are none."""
        # the state first: another process removes it once its checkpoint is there
        so_far = _state_history(self.beside(name, "state"), run_id(settings))
        if self.state(name, settings) in (State.FINISHED, State.DIVERGED):
            return self.result(name)["history"]
        return so_far

    def has_reached(self, name: str, update: int, settings: dict[str, Any]) -> bool:
        """Whether a training with these settings is finished, or was evaluated at this update or later."""
        history = self.history(name, settings)
        is_there = bool(history) and history[-1]["update"] >= update
        return is_there or self.state(name, settings) in (State.FINISHED, State.DIVERGED)

    def is_locked(self, name: str) -> bool:
        """Whether another process is writing this checkpoint."""
        return is_locked(self.beside(name, "lock"))

    def conflict(self, settings: dict[str, Any]) -> str:
        """What the folder holds that keeps a run with these settings away, in words; blank if nothing does.

        That is the first checkpoint with other settings, or with files that no run has left.
        """
        changes: list[str] = []
        for name in self.names():
            changes = self._changes(name, settings)
            if not changes and not self.is_stale(name) and _holds_files_alone(self.path / name):
                return f"{name} with files that no run has left (no {RESULT}), which would be deleted"
            if changes:
                break
        # all checkpoints may have been deleted, and the metrics beside them be all that is left
        before = read_json(self.path / SETTINGS)
        if not changes and before and (self.path / RESULT).is_file():
            changes = differences(before, settings)
        return f"a run with other arguments: {'; '.join(changes)}" if changes else ""

    def _changes(self, name: str, settings: dict[str, Any]) -> list[str]:
        """In which settings a finished, stale or unfinished checkpoint differs from these, in words."""
        state_file = self.beside(name, "state")
        run_settings = read_json(self.path / SETTINGS)
        if self.is_stale(name):
            before = self._stale_record(name).get("settings") or run_settings
        elif self.result(name):
            before = self.settings(name)
        elif not state_file.exists() or _run_id_of(state_file) == run_id(settings):
            return []
        else:
            # a state file holds a digest of its settings alone; the run folder's are the likeliest
            before = run_settings
        return differences(before, settings) if before else [f"{name} does not say which"]

    def is_being_overwritten(self, names: list[str], settings: dict[str, Any]) -> bool:
        """Whether a run with these settings and --overwrite was stopped before it had replaced these checkpoints."""
        record = self._stale_record(names[0])
        before = record.get("settings")
        return before is not None and not differences(before, settings) and {*names} <= {*record.get("names", names)}

    def overwrite(self, names: list[str], settings: dict[str, Any]) -> None:
        """Mark these checkpoints, and all that were made with other settings, as stale.

        The folders stay until they are replaced; files beside them that were derived with other settings are removed.
        The first name is marked last: a run that is stopped before that starts over from the beginning.
        """
        others = [name for name in self.names() if name not in names and self._changes(name, settings)]
        if differences(read_json(self.path / SETTINGS), settings):
            for derived in (RESULT, *task_of(settings).submission_names):
                (self.path / derived).unlink(missing_ok=True)
        for name in [*others, *reversed(names)]:
            self.beside(name, "state").unlink(missing_ok=True)
            record = {"settings": settings, "names": names, "replaces": self.identity(name)}
            write_json(self.beside(name, "stale"), record)

    def submission_of(self, name: str, tests: Iterable[Path]) -> dict[str, str]:
        """The record of a run's submission files in metrics.json: digests of their checkpoint and of the test sets."""
        return {"checkpoint": name, "result": self.identity(name), "test": fingerprint(tests)}

    def has_current_submission(self) -> bool:
        """Whether the submission file was predicted by the best checkpoint, and that has not been replaced since."""
        metrics = read_json(self.path / RESULT)
        record = metrics.get(SUBMISSION) or {}
        name = checkpoint_name(metrics.get("best_teacher_sparsity"))
        return record.get("checkpoint") == name and record["result"] == self.identity(name)

    def is_complete(self, names: list[str], submission: str | None = None) -> bool:
        """Whether the files derived from these finished checkpoints are written too, and no hidden file is left.

        Args:
            submission: name of the submission file, if one is asked for.
        """
        # the metrics beside the checkpoints list every teacher sparsity
        metrics = read_json(self.path / RESULT)
        sparsities = {str(sparsity_of(name)) for name in names if name != CHECKPOINT}
        if not metrics or sparsities - set(metrics.get("sparsity", {})):
            return False

        if submission and not (self.has_current_submission() and (self.path / submission).is_file()):
            return False
        return not any(self.beside(name, kind).exists() for name in names for kind in ("state", "stale", "lock"))

    def tidy(self, name: str) -> None:
        """Remove the hidden files of a finished checkpoint that stopped runs have left; the caller holds its lock."""
        if self.result(name):
            self.recover(name)
            remove_part(self.path / name)
            for kind in ("state", "stale"):
                self.beside(name, kind).unlink(missing_ok=True)
                remove_part(self.beside(name, kind))

    def recover(self, name: str) -> None:
        """Put back a checkpoint that a process had moved aside when it was killed."""
        recover(self.path / name)

    def _stale_record(self, name: str) -> dict[str, Any]:
        """Content of a checkpoint's stale file; {} if there is none, or an empty one, as earlier versions wrote."""
        path = self.beside(name, "stale")
        return read_json(path) if path.is_file() and path.stat().st_size else {}

    def identity(self, name: str) -> str:
        """A digest of a checkpoint's settings and result; one made again differs in the time of its end."""
        files = [self.path / name / file for file in (SETTINGS, RESULT)]
        return fingerprint(path for path in files if path.is_file())


def _holds_files_alone(checkpoint: Path) -> bool:
    """Whether a checkpoint's folder holds files, but no metrics.json."""
    return checkpoint.is_dir() and not (checkpoint / RESULT).is_file() and any(checkpoint.iterdir())


def _run_id_of(state_file: Path) -> str | None:
    """The run_id in a state file; None if it was removed just now, or cannot be read, which its own run says."""
    try:
        return StateFile.run_id_of(state_file)
    except (InputError, OSError):
        return None


def _state_history(state_file: Path, of_run: str) -> list[dict[str, Any]]:
    """The evaluations in a run's state file; [] if the file is another run's, damaged, or was removed just now."""
    try:
        return StateFile.history_of(state_file) if StateFile.run_id_of(state_file) == of_run else []
    except (InputError, FileNotFoundError):
        return []


def checkpoint_settings(path: str) -> dict[str, Any]:
    """The settings that the checkpoint in this folder was made with; {} if this project did not make it."""
    folder = Path(path)
    return of_a_stage(RunFolder(folder.parent).settings(folder.name)) if folder.is_dir() else {}


def refuse_other_rows(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Check that the checkpoints that a stage reads were selected and measured on the same rows of dev as this run.

    Raises:
        InputError: one was selected on other rows.
    """
    for flag, path in vars(args).items():
        if not flag.endswith("model_path"):
            continue
        changes = other_rows(checkpoint_settings(path), settings)
        if changes:
            raise InputError(
                f"--{flag} {path}: chosen and measured on other rows of dev: {'; '.join(changes)}; "
                "all stages of a chain take the same"
            )


def run_folders(root: Path) -> list[RunFolder]:
    """All run folders at and below `root` that hold a checkpoint with a result, sorted by path."""
    results = root.rglob(f"{CHECKPOINT}*/{RESULT}")
    paths = {result.parent.parent for result in results if is_checkpoint(result.parent.name)}
    return [RunFolder(path) for path in sorted(paths)]
