"""Check the flags of several stages before the first of them starts: a wrong one is found at once, not after hours.

    python scripts/check_flags.py run_pruning.py --task_name rte -- run_rewinding.py --task_name rte --lam 0.5

Checkpoints that stages find by default need not be there yet.
"""

import argparse
import importlib
import itertools
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from models.pruning import SPARSITIES
from utils.entry import entry_point
from utils.errors import InputError
from utils.files import write_json
from utils.flags import Parser
from utils.paths import teacher_sparsities
from utils.tasks import find_task
from utils.unlabelled import existing_file

BETWEEN = "--"  # stages
TEACHER_AND_STUDENT = ("--teacher_model_path", "--student_model_path")
MADE_EARLIER = {  # stage -> flags of the checkpoints that it reads from earlier stages
    "run_finetuning.py": (),
    "run_pruning.py": ("--model_path",),
    "run_distillation.py": TEACHER_AND_STUDENT,
    "run_sparsification.py": TEACHER_AND_STUDENT,
    "run_rewinding.py": TEACHER_AND_STUDENT,
}

# content of the config.json that stands for each checkpoint to be made: what stages 2 and 4 sort can be cut at these
SORTED = {"sparsity_map": {str(sparsity): {} for sparsity in SPARSITIES}}


def check(command: list[str]) -> None:
    """Parse a stage's command line as the stage itself does, and check what it would find out later.

    Raises:
        InputError: there is no such stage or task, its folder or a file of rows without labels is missing, or no
            checkpoint of an earlier stage will hold a sparsity.
        SystemExit: status 2 and one line, for a flag that the stage does not take.
    """
    script, *flags = command
    if script not in MADE_EARLIER:
        raise InputError(f"{script}: no stage, expected one of {', '.join(MADE_EARLIER)}")
    with tempfile.TemporaryDirectory() as folder:
        # parsed in the stage's name, so that an error is its own
        write_json(Path(folder, "config.json"), SORTED)
        paths = [word for flag in MADE_EARLIER[script] for word in (flag, folder)]
        sys.argv = [script, *paths, *flags]
        args = importlib.import_module(script.removesuffix(".py")).parse_args()

    # sparsities that no checkpoint will hold, and files that are read first in a late stage
    if "teacher_sparsity" in args:
        teacher_sparsities(args, SORTED)
    if getattr(args, "student_sparsity", None) not in (None, *SPARSITIES):
        known = ", ".join(map(str, SPARSITIES))
        raise InputError(f"--student_sparsity {args.student_sparsity}: stage 2's checkpoint knows {known}")
    for name in getattr(args, "unlabelled", None) or ():
        existing_file(name, find_task(args.task_name, args.data_dir))


def parse_args(argv=None):
    parser = Parser(__doc__)
    text = f"scripts of stages with their flags, {BETWEEN} between them"
    parser.add_argument("commands", nargs=argparse.REMAINDER, help=text)
    args = parser.parse_args(argv)
    if not args.commands:
        parser.error("found nothing to check, expected the scripts of stages with their flags")
    return args


@entry_point()
def main(argv=None):
    for is_between, words in itertools.groupby(parse_args(argv).commands, BETWEEN.__eq__):
        if not is_between:
            check(list(words))


if __name__ == "__main__":
    main()
