"""Check the flags of several stages before the first of them starts: a wrong one is found at once, not after hours.

    python scripts/check_flags.py run_pruning.py --task_name rte -- run_rewinding.py --task_name rte --lam 0.5

Checkpoints that stages find by default need not be there yet.
"""

import argparse
import contextlib
import importlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from models.units import CheckpointError
from utils.entry import entry_point
from utils.errors import InputError
from utils.flags import Parser

BETWEEN = "--"  # stages
TEACHER_AND_STUDENT = ("--teacher_model_path", "--student_model_path")
MADE_EARLIER = {  # stage -> flags of the checkpoints that it reads from earlier stages
    "run_finetuning.py": (),
    "run_pruning.py": ("--model_path",),
    "run_distillation.py": TEACHER_AND_STUDENT,
    "run_sparsification.py": TEACHER_AND_STUDENT,
    "run_rewinding.py": TEACHER_AND_STUDENT,
}


def commands(words: list[str]) -> Iterator[list[str]]:
    """The words of each command; BETWEEN is between two of them."""
    command: list[str] = []
    for word in [*words, BETWEEN]:
        if word != BETWEEN:
            command.append(word)
        elif command:
            yield command
            command = []


def check(command: list[str]) -> None:
    """Parse a stage's command line as the stage itself does.

    Raises:
        InputError: there is no such stage or task, its folder is missing, or a file of rows without labels.
        SystemExit: status 2 and one line, for a flag that the stage does not take.
    """
    script, *flags = command
    if script not in MADE_EARLIER:
        raise InputError(f"{script}: no stage, expected one of {', '.join(MADE_EARLIER)}")
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(CheckpointError):
        # in the stage's name, so that an error is its own; the empty folder stands for each checkpoint
        paths = [word for flag in MADE_EARLIER[script] for word in (flag, folder)]
        sys.argv = [script, *flags, *paths]
        importlib.import_module(script.removesuffix(".py")).parse_args()


def parse_args(argv=None):
    parser = Parser(__doc__)
    text = f"scripts of stages with their flags, {BETWEEN} between them"
    parser.add_argument("commands", nargs=argparse.REMAINDER, help=text)
    return parser.parse_args(argv)


@entry_point()
def main(argv=None):
    for command in commands(parse_args(argv).commands):
        check(command)


if __name__ == "__main__":
    main()
