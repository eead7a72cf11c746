"""Collect the submission files that --do_test wrote into a zip for GLUE's server.

    python scripts/submission.py                                    # all of outputs/, one file for each task
    python scripts/submission.py outputs/rewind/layer_dropped/kd_4_*_0.5 WNLI.tsv --output submission.zip

Folders are searched recursively for RTE.tsv, MRPC.tsv and so on; two files for one task are an error. Each must have a
row for each example of GLUE's test set, in order, with a label of the task or a score from 0 to 5. The server accepts
complete sets only: the nine tasks (MNLI is two files) and WNLI; the diagnostic set AX is optional.
"""

import math
import sys
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.arguments import Parser
from utils.entry import entry_point
from utils.errors import InputError
from utils.files import written_beside
from utils.folder import RunFolder
from utils.submission import HEADER
from utils.tables import table
from utils.tasks import DIAGNOSTIC_FILE, DIAGNOSTIC_ROWS, NLI, SCORE_RANGE, TASKS

TASK_NAMES = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "mnlimm", "qnli", "rte", "wnli")  # in GLUE's order
ROWS = {TASKS[name].title: TASKS[name].rows[-1] for name in TASK_NAMES}  # of test sets, by title
DIAGNOSTIC_TITLE = Path(DIAGNOSTIC_FILE).stem
ROWS[DIAGNOSTIC_TITLE] = DIAGNOSTIC_ROWS
OPTIONAL = (DIAGNOSTIC_TITLE,)
# title of a file -> labels that it may hold; () is a score
LABELS = {**{task.title: task.file_labels for task in TASKS.values()}, DIAGNOSTIC_TITLE: NLI}


def parse_args(argv=None):
    parser = Parser(__doc__)
    add = parser.add_argument
    add("paths", nargs="*", default=["outputs"], help="folders to search, or files (default outputs)")
    add("--output", default="submission.zip", help="zip to write (default submission.zip)")
    add("--allow_missing", action="store_true", help="write an incomplete set, too (default: an error)")
    return parser.parse_args(argv)


def find_files(paths: list[str]) -> dict[str, Path]:
    """Title -> submission file, in GLUE's order, of these files and of all below these folders.

    Raises:
        InputError: there is no such file or folder, a file has none of GLUE's names, two files are for one task, or
            one was predicted by a checkpoint that is not the best one, or has been replaced since.
    """
    by_title = {}
    for path in map(Path, paths):
        # a folder stands for all submission files below it
        if path.is_dir():
            files = [file for title in ROWS for file in sorted(path.rglob(f"{title}.tsv"))]
        elif not path.is_file():
            raise InputError(f"{path}: no such file or folder")
        elif path.suffix != ".tsv" or path.stem not in ROWS:
            raise InputError(f"{path}: not a name that GLUE knows, expected one of {_names(ROWS)}")
        else:
            files = [path]

        # one file for each task, of a checkpoint that is there
        for file in files:
            other = by_title.setdefault(file.stem, file)
            if other.resolve() != file.resolve():
                raise InputError(f"two files for {file.stem}: {other} and {file}; name the folders to take")
            run = RunFolder(file.parent)
            if run.names() and not run.has_current_submission():
                raise InputError(
                    f"{file}: not of the best checkpoint beside it; the run's command with --do_test writes it anew"
                )
    return {title: by_title[title] for title in ROWS if title in by_title}


def _names(titles) -> str:
    return ", ".join(f"{title}.tsv" for title in titles)


def read_predictions(path: Path) -> bytes:
    """The content of a submission file, after checking header, indices, labels or scores, and number of rows.

    Raises:
        InputError: one of them is wrong; the message names file and line.
    """
    content = path.read_bytes()
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    if lines[-1] == "":
        lines.pop()
    if not lines or lines[0] != HEADER:
        raise InputError(f"{path} line 1: {''.join(lines[:1])[:40]!r}, expected {HEADER!r}")
    for index, line in enumerate(lines[1:]):
        _check_row(line, index, LABELS[path.stem], f"{path} line {index + 2}")
    if len(lines) - 1 != ROWS[path.stem]:
        raise InputError(f"{path}: {len(lines) - 1} rows, expected the {ROWS[path.stem]} of GLUE's test set")
    return content


def _check_row(line: str, index: int, labels: tuple[str, ...], location: str) -> None:
    """Raise InputError unless a row is this index and one of these labels, or a score if `labels` is ()."""
    columns = line.split("\t")
    if len(columns) != 2:
        raise InputError(f"{location}: {len(columns)} columns, expected 2")
    if columns[0] != str(index):
        raise InputError(f"{location}: index {columns[0]!r}, expected {index}")
    if labels and columns[1] not in labels:
        raise InputError(f"{location}: prediction {columns[1]!r}, expected one of {', '.join(labels)}")
    lowest, highest = SCORE_RANGE
    if not labels and not lowest <= _number(columns[1]) <= highest:
        raise InputError(f"{location}: prediction {columns[1]!r}, expected a number from {lowest} to {highest}")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


@entry_point()
def main(argv=None):
    args = parse_args(argv)
    # read and check everything before the zip is written
    output = Path(args.output)
    if output.is_dir() or not output.parent.is_dir():
        raise InputError(f"--output {output}: expected a file in a folder that exists")
    files = find_files(args.paths)
    if not files:
        raise InputError(f"{', '.join(args.paths)}: none of {_names(ROWS)}; --do_test writes them")
    missing = [title for title in ROWS if title not in files and title not in OPTIONAL]
    if missing and not args.allow_missing:
        raise InputError(f"missing {_names(missing)}: GLUE's server takes complete sets only (--allow_missing)")
    contents = {title: read_predictions(path) for title, path in files.items()}

    with written_beside(output) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        for title, content in contents.items():
            archive.writestr(f"{title}.tsv", content)
    print(table(("task", "rows", "file"), [(title, ROWS[title], path) for title, path in files.items()]))
    print(f"written to {output}")
    if missing:
        print(f"without {_names(missing)}: GLUE's server will not accept it")


if __name__ == "__main__":
    main()
