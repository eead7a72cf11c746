"""What the folder of a run holds, judged in this one place and from its checkpoints.

    folder = RunFolder(Path("outputs/rewind/layer_dropped/kd_4_rte_0.5"))
    folder.state("ckpt_30", settings)     # absent, in training, finished, diverged, stale, or made with other settings
    folder.results()                      # of all finished checkpoints

A checkpoint is whole: weights, configuration, vocabulary, model card, the settings it was made with (args.json) and
what it came to (metrics.json); it appears at once. What lies beside it, args.json, metrics.json and submission files,
is derived from it. Weights may be deleted to save space: what is left still is a result.

    .ckpt.state     how far training has come: utils.resume
    .ckpt.stale     the checkpoint is being made again: the settings of that run, and which checkpoint it replaces
    .ckpt.lock      held by the process that writes the checkpoint
"""

import argparse
import enum
from pathlib import Path
from typing import Any

from utils.errors import InputError
from utils.files import fingerprint, is_locked, read_json, recover, write_json
from utils.paths import CHECKPOINT, is_checkpoint, sparsity_of
from utils.resume import StateFile
from utils.settings import SETTINGS, differences, other_rows, run_id
from utils.tasks import TASKS

RESULT = "metrics.json"
SUBMISSION = "submission"  # its key in metrics.json beside the checkpoints: submission_of


class State(enum.StrEnum):
    """What a folder holds under a checkpoint's name."""

    ABSENT = "absent"
    IN_TRAINING = "in training"
    FINISHED = "finished"
    DIVERGED = "diverged"  # finished, with the best weights before the loss ended being a number
    STALE = "being made again"
    OTHER = "made with other settings"


class RunFolder:
    """The folder of one run, which holds one checkpoint, or one for each teacher sparsity."""

    def __init__(self, path: Path):
        self.path = path

    def beside(self, name: str, kind: str) -> Path:
        """The file of a kind (state, stale, lock) that belongs to a checkpoint."""
        return self.path / f".{name}.{kind}"

    def names(self) -> list[str]:
        """All checkpoints that are there or have begun, by teacher sparsity; other names are nobody's."""
        if not self.path.is_dir():
            return []
        kinds = {".state", ".stale"}
        found = {
            path.name if path.is_dir() else path.stem.removeprefix(".")
            for path in self.path.iterdir()
            if path.is_dir() or path.suffix in kinds
        }
        return sorted(filter(is_checkpoint, found), key=lambda name: -1 if name == CHECKPOINT else sparsity_of(name))

    def settings(self, name: str) -> dict[str, Any]:
        """With what a checkpoint was made, as args.json has it; {} if nothing says so.

        Checkpoints of earlier versions have no args.json of their own; it lay beside them.
        """
        own = read_json(self.path / name / SETTINGS)
        return own or (read_json(self.path / SETTINGS) if (self.path / name / RESULT).is_file() else {})

    def is_stale(self, name: str) -> bool:
        """Whether a checkpoint is being made again, and is still the one before."""
        if not self.beside(name, "stale").exists():
            return False
        replaced = self._overwriting(name).get("replaces")
        return replaced is None or replaced == self.identity(name)

    def result(self, name: str) -> dict[str, Any]:
        """What a checkpoint came to; {} if it is not finished, or stale."""
        return {} if self.is_stale(name) else read_json(self.path / name / RESULT)

    def results(self, settings: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
        """What each finished checkpoint came to, by name and ascending teacher sparsity, whichever process made it.

        Args:
            settings: leaves out checkpoints that were made with others.
        """
        results = {name: result for name in self.names() if (result := self.result(name))}
        if settings is None:
            return results
        return {name: result for name, result in results.items() if not differences(self.settings(name), settings)}

    def state(self, name: str, settings: dict[str, Any]) -> State:
        """What is there under this name, for a run with these settings."""
        result = self.result(name)
        if result:
            if differences(self.settings(name), settings):
                return State.OTHER
            return State.DIVERGED if result.get("diverged") else State.FINISHED
        if self.is_stale(name):
            return State.STALE
        return State.IN_TRAINING if self.beside(name, "state").exists() else State.ABSENT

    def is_locked(self, name: str) -> bool:
        """Whether a process is writing this checkpoint."""
        return is_locked(self.beside(name, "lock"))

    def conflicts(self, settings: dict[str, Any]) -> list[str]:
        """What decides the result of anything in here and is not as in these settings, in words; none if all is."""
        for name in self.names():
            if changes := self._changes(name, settings):
                return changes
        # the checkpoint may be deleted, and its numbers all that is left
        before = read_json(self.path / SETTINGS)
        return differences(before, settings) if before and (self.path / RESULT).is_file() else []

    def _changes(self, name: str, settings: dict[str, Any]) -> list[str]:
        """In what a checkpoint, or one that is being made, differs from these settings; in words."""
        state, beside = self.beside(name, "state"), read_json(self.path / SETTINGS)
        if self.is_stale(name):
            before = self._overwriting(name).get("settings") or beside
        elif self.result(name):
            before = self.settings(name)
        elif not state.exists() or _run_of(state) == run_id(settings):
            return []
        else:
            before = beside  # says what the training had begun with, if no other has come in between
        return differences(before, settings) if before else [f"{name} does not say which"]

    def is_being_overwritten(self, name: str, settings: dict[str, Any]) -> bool:
        """Whether a run with these settings has begun to make this checkpoint again, and was stopped."""
        if not self.beside(name, "stale").exists():
            return False
        before = self._overwriting(name).get("settings")
        return before is not None and not differences(before, settings)

    def overwrite(self, names: list[str], settings: dict[str, Any]) -> None:
        """Mark these checkpoints as being made again, and with them all that were made with other settings.

        They stay until they are replaced. Numbers beside them that were made with other settings go at once. The mark
        of the first name comes last, so that it stands for all: of a run that is stopped before, nothing has begun.
        """
        others = [name for name in self.names() if name not in names and self._changes(name, settings)]
        if differences(read_json(self.path / SETTINGS), settings):
            for derived in (RESULT, f"{TASKS[settings['task_name']].title}.tsv"):
                (self.path / derived).unlink(missing_ok=True)
        for name in [*others, *reversed(names)]:
            self.beside(name, "state").unlink(missing_ok=True)
            write_json(self.beside(name, "stale"), {"settings": settings, "replaces": self.identity(name)})

    def submission_of(self, name: str, test: Path) -> dict[str, str]:
        """What metrics.json says of a submission file: which checkpoint it is of, and which test set."""
        return {"checkpoint": name, "result": self.identity(name), "test": fingerprint([test])}

    def has_current_submission(self) -> bool:
        """Whether the submission file is of a checkpoint that is there, as far as metrics.json says so."""
        made_from = read_json(self.path / RESULT).get(SUBMISSION) or {}
        name = made_from.get("checkpoint", "")
        return bool(name) and made_from["result"] == self.identity(name)

    def is_complete(self, names: list[str], do_test: bool = False) -> bool:
        """Whether a command that makes these finished checkpoints came to its end: all that it derives is there.

        Args:
            do_test: whether it predicts the test set.
        """
        told = read_json(self.path / RESULT)
        sparsities = {str(sparsity) for name in names if (sparsity := sparsity_of(name)) is not None}
        if not told or sparsities - {*told.get("sparsity", {})}:
            return False
        if do_test and not (self.has_current_submission() and any(self.path.glob("*.tsv"))):
            return False
        return not any(self.beside(name, kind).exists() for name in names for kind in ("state", "stale", "lock"))

    def tidy(self, name: str) -> None:
        """Take away what stopped runs have left beside a checkpoint that is there; whoever calls it holds its lock."""
        if self.result(name):
            self.recover(name)
            for kind in ("state", "stale"):
                self.beside(name, kind).unlink(missing_ok=True)

    def recover(self, name: str) -> None:
        """Bring back a checkpoint that a process, killed between two renames, had moved aside."""
        recover(self.path / name)

    def _overwriting(self, name: str) -> dict[str, Any]:
        """Content of the mark; earlier versions left it empty."""
        mark = self.beside(name, "stale")
        return read_json(mark) if mark.is_file() and mark.stat().st_size else {}

    def identity(self, name: str) -> str:
        """A digest that tells a checkpoint from one made again with the same settings: its seconds are others."""
        files = [self.path / name / file for file in (SETTINGS, RESULT)]
        return fingerprint(path for path in files if path.is_file())


def _run_of(state: Path) -> str | None:
    """The run whose training a state file is of; None if it is damaged, which its run will say when it goes on."""
    try:
        return StateFile.of_run(state)
    except InputError:
        return None


def checkpoint_settings(path: str) -> dict[str, Any]:
    """With what the checkpoint in this folder was made, as args.json has it; {} if it was not made here."""
    folder = Path(path)
    return RunFolder(folder.parent).settings(folder.name) if folder.is_dir() else {}


def refuse_other_rows(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    """See that the checkpoints that a stage reads were chosen and measured on the rows of dev that it takes itself.

    Raises:
        InputError: one was not.
    """
    for flag, path in vars(args).items():
        before = checkpoint_settings(path) if flag.endswith("model_path") else {}
        if changes := other_rows(before, settings):
            raise InputError(
                f"--{flag} {path}: chosen and measured on other rows of dev: {'; '.join(changes)}; "
                "all stages of a chain take the same"
            )


def run_folders(root: Path) -> list[RunFolder]:
    """The folders at and below this one that hold a checkpoint with a result, in order."""
    found = {path.parent.parent for path in root.rglob(f"{CHECKPOINT}*/{RESULT}") if is_checkpoint(path.parent.name)}
    return [RunFolder(path) for path in sorted(found)]
