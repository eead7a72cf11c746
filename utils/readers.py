"""Rows of tab-separated files, and where their columns are by name.

rows = tsv_rows(Path("datasets/rte/train.tsv"))
line, header = next(rows)
find_columns(header, ("sentence1", "sentence2", "label"))  # [1, 2, 3]
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from utils.errors import InputError

OTHER_KINDS = {  # what stands in the place of a file that was never fetched, by its first line
    "a git-lfs pointer, to be fetched with git lfs pull": re.compile(r"version https://git-lfs\.github\.com/spec/"),
    "an HTML page": re.compile(r"<(!doctype|html|head|body|\?xml)\b", re.IGNORECASE),
}
LONGEST_FIELD, MOST_FIELDS = 40, 20  # of what a message repeats of a file


def tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line that is not blank, the header included.

    Tabs separate and nothing quotes or escapes: a stray " must not swallow rows. Lines end at a line feed only, since
    the texts hold other characters that Python takes for line ends; fields lose the blanks around them, but a line
    is never stripped, or an empty last field would be lost.

    Raises:
        InputError: not UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                row = [field.strip(" \r\n") for field in line.split("\t")]
                if row != [""]:
                    yield number, row
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start} of a block)") from None


def find_columns(
    header: Sequence[str], names: Sequence[str], synonyms: Mapping[str, str] | None = None
) -> list[int] | None:
    """The positions of these columns, or None if not each is there, and once.

    Args:
        header: the names that a file gives its columns, in its order.
        names: the columns to find.
        synonyms: other names -> the names that are looked for.
    """
    known = [(synonyms or {}).get(name, name) for name in header]
    return [known.index(name) for name in names] if all(known.count(name) == 1 for name in names) else None


def other_kind(first_row: Sequence[str]) -> str | None:
    """What a file is that holds no table at all, by its first row; None if it may be one."""
    return next((kind for kind, pattern in OTHER_KINDS.items() if pattern.match(first_row[0])), None)


def is_quoted(field: str) -> bool:
    """Has a CSV writer put this field in quotes, and doubled those inside?"""
    inside = field[1:-1]
    return field[:1] == field[-1:] == '"' and '""' in inside and '"' not in inside.replace('""', "")


def shown(field: str) -> str:
    """A field in quotes for a message, at most its first 40 characters."""
    return repr(field if len(field) <= LONGEST_FIELD else f"{field[:LONGEST_FIELD]}...")


def listed(fields: Sequence[str]) -> str:
    """Fields in quotes for a message, at most the first 20."""
    return ", ".join([*map(shown, fields[:MOST_FIELDS]), *["..."] * (len(fields) > MOST_FIELDS)])
