"""Rows of a .csv, .tsv or .jsonl file, whose columns are found by name.

for line, (title, stars) in read_columns("reviews.csv", ["title", "stars"]): ...
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from utils.errors import InputError

SUFFIXES = (".csv", ".tsv", ".jsonl")
SEPARATORS = {".csv": ",", ".tsv": "tab"}
OTHER_SEPARATORS = {";": ";", "\t": "tab", ",": ","}  # that a header may have instead -> their names in a message
OTHER_KINDS = {  # files without a table, such as failed downloads leave -> pattern of their first line
    "a git-lfs pointer, to be fetched with git lfs pull": re.compile(r"version https://git-lfs\.github\.com/spec/"),
    "text in UTF-16 instead of UTF-8": re.compile("[^\0]\0|\0[^\0]"),
    "an HTML page": re.compile(r"<(!doctype|html|head|body|\?xml)\b", re.IGNORECASE),
}
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
SURROGATE = re.compile("[\ud800-\udfff]")
UTF16 = (b"\xff\xfe", b"\xfe\xff")  # its byte-order marks
# limits of what an error message quotes from a file
LONGEST_FIELD = 40  # characters
MOST_FIELDS = 20
csv.field_size_limit(2**31 - 1)  # characters of a field; the module's 131,072 would refuse long texts


def read_columns(
    path: str | Path, names: Sequence[str], synonyms: Mapping[str, str] | None = None, strip: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """Line number where a row begins, and its fields in these columns, for each row; blank lines are left out.

    `.csv`: fields with commas, line breaks or quotes inside stand in double quotes, and the quotes inside are doubled.
    `.tsv`: fields are as they stand, without quoting. `.jsonl`: an object a line; numbers are texts as they are
    written, true and false too.

    Args:
        names: columns to read, in the order of the fields.
        synonyms: other names of a column in the file -> the name in `names`.
        strip: without the white space around a field.

    Raises:
        InputError: the file is missing, of another suffix, empty or not UTF-8; a column is missing or occurs twice; a
            row has fields missing or too many; a quote is not closed; a line of `.jsonl` is not an object, or has
            something else than a text, a number, true or false in one of the columns. The message names file and line.
    """
    path = Path(path)
    if _suffix(path) == ".jsonl":
        rows = _object_rows(path, names, synonyms or {})
    else:
        rows = _table_rows(path, names, synonyms or {})
    for line, fields in rows:
        yield line, [field.strip() for field in fields] if strip else fields


def column_names(path: str | Path) -> list[str]:
    """The columns of a file, from its header or the first object of a .jsonl.

    Raises:
        InputError: the file is missing, of another suffix, empty or not UTF-8, or its first row cannot be read.
    """
    path = Path(path)
    if _suffix(path) == ".jsonl":
        _, first = _first(path, _objects(path))
        return list(first)
    return [name.strip() for name in _first(path, _split_rows(path))[1]]


def _suffix(path: Path) -> str:
    """The kind of a file by its name: .csv, .tsv or .jsonl."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: expected a file whose name ends in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return suffix


def _first(path: Path, rows: Iterator[tuple[int, Any]]) -> tuple[int, Any]:
    """Line number and content of the first row."""
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path}: empty, expected rows")
    return first


def _split_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each row of a table that is not blank, including the header."""
    return csv_rows(path) if _suffix(path) == ".csv" else tsv_rows(path)


def _table_rows(path: Path, names: Sequence[str], synonyms: Mapping[str, str]) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file with a header."""
    rows = _split_rows(path)
    line, header = _first(path, rows)
    positions = find_columns(header, names, synonyms)
    if positions is None:
        raise InputError(f"{path} line {line}: {_header_fault(path, header, names)}")
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(f"{path} line {line}: {len(row)} columns, expected {len(header)} as in the header")
        yield line, [row[position] for position in positions]


def _header_fault(path: Path, header: Sequence[str], names: Sequence[str]) -> str:
    """What a header without these columns is, and what was expected."""
    kind = other_kind(header)
    if kind:
        return f"{kind}, expected a table with the columns {listed(names)}"
    separator = SEPARATORS[path.suffix.lower()]
    others = [word for mark, word in OTHER_SEPARATORS.items() if mark in header[0] and word != separator]
    if len(header) == 1 and others:
        return f"columns separated by {others[0]}, expected {separator} as in every {path.suffix} file"
    return f"columns {listed(header)}, expected {listed(names)} by name, once each"


def _object_rows(path: Path, names: Sequence[str], synonyms: Mapping[str, str]) -> Iterator[tuple[int, list[str]]]:
    """The rows of a .jsonl file."""
    objects = _objects(path)
    for line, found in chain([_first(path, objects)], objects):
        positions = find_columns(list(found), names, synonyms)
        if positions is None:
            raise InputError(f"{path} line {line}: keys {listed(list(found))}, expected {listed(names)}, once each")
        values = list(found.values())
        yield line, [_as_written(values[i], f"{path} line {line}: {names[n]}") for n, i in enumerate(positions)]


def _as_written(value: Any, location: str) -> str:
    """A value of JSON as its file writes it, numbers being strings already.

    Args:
        location: file, line and key, for the message.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        found = "null or NaN" if value is None else "a list" if isinstance(value, list) else "an object"
        raise InputError(f"{location} is {found}, expected a text or a number")
    if not is_unicode(value):
        raise InputError(f"{location} is {shown(value)}, with half of a character (a lone surrogate)")
    return value


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line that is not blank."""
    with _utf8(path), open(path, encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(
                    line,
                    parse_int=str,
                    parse_float=str,
                    parse_constant=lambda _: None,  # NaN, which json.dumps writes for what is missing
                    object_pairs_hook=_without_repeats,
                )
            except json.JSONDecodeError as error:
                fault = f"{error.msg} at character {error.pos + 1}"
                raise InputError(f"{path} line {number}: {fault}, expected a JSON object a line") from None
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path} line {number}: {error}, expected a JSON object a line") from None
            if not isinstance(found, dict):
                raise InputError(f"{path} line {number}: {shown(line.strip())}, expected a JSON object a line")
            yield number, {key.strip(): value for key, value in found.items()}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, refused if a key occurs twice: which of the values counts is not known."""
    found = {key.strip(): value for key, value in pairs}
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number where a row begins, and its fields, for each row that is not blank, including the header.

    Raises:
        InputError: the file is not UTF-8, a quote is not closed, or text follows a closing quote.
    """
    with _utf8(path), open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        width = None
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise InputError(
                    f"{path} line {line}: a torn quote in the row that begins here ({error}), expected quotes around a "
                    "whole field and doubled inside"
                ) from None
            if row is None:
                return
            if width is None:
                row = [name.strip() for name in row]
            is_blank = not row or (width != 1 and len(row) == 1 and not row[0].strip())
            if not is_blank:
                width = width or len(row)
                yield line, row


def tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line that is not blank, including the header.

    Fields are separated by tabs, without quoting or escapes: a stray " must not swallow rows. Lines end at a line feed
    only, since the texts hold other characters that Python would split at. Fields are stripped, but not the line:
    an empty last field would be lost.

    Raises:
        InputError: the file is not UTF-8.
    """
    with _utf8(path), open(path, encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            row = [field.strip(" \r\n") for field in line.split("\t")]
            if row != [""]:
                yield number, row


@contextmanager
def _utf8(path: Path) -> Iterator[None]:
    """Reading that raises InputError, with the line, if the file is not UTF-8."""
    try:
        yield
    except UnicodeDecodeError:
        with open(path, "rb") as file:
            if file.read(2) in UTF16:
                raise InputError(f"{path}: not UTF-8 text but UTF-16, expected UTF-8") from None
            file.seek(0)
            for number, line in enumerate(file, start=1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    found = f"{error.reason} {line[error.start : error.end].hex()}"
                    raise InputError(f"{path}: not UTF-8 text in line {number} ({found})") from None
        raise


def find_columns(
    header: Sequence[str], names: Sequence[str], synonyms: Mapping[str, str] | None = None
) -> list[int] | None:
    """Positions of these columns in a header; None unless each occurs exactly once.

    Args:
        header: column names of a file, in its order.
        names: names of the columns to find.
        synonyms: other names of a column -> the name in `names`.
    """
    synonyms = synonyms or {}
    columns = [synonyms.get(name, name) for name in header]
    if any(columns.count(name) != 1 for name in names):
        return None
    return [columns.index(name) for name in names]


def other_kind(first_row: Sequence[str]) -> str | None:
    """The kind of a file that holds no table, such as an HTML page, by its first row; None if it may hold one."""
    return next((kind for kind, pattern in OTHER_KINDS.items() if pattern.match(first_row[0])), None)


def number_of(field: str) -> float:
    """The number that a field holds, as people write it; NaN if it holds none, and for "inf" and "1_000", too."""
    return float(field) if NUMBER.fullmatch(field) else math.nan


def is_unicode(text: str) -> bool:
    """Whether a text holds whole characters alone; JSON can write half of one, a lone surrogate."""
    return not SURROGATE.search(text)


def is_quoted(field: str) -> bool:
    """Whether a CSV writer has put this field in quotes and doubled the quotes inside."""
    inside = field[1:-1]
    return field[:1] == field[-1:] == '"' and '""' in inside and '"' not in inside.replace('""', "")


def shown(field: str) -> str:
    """A field in quotes for an error message, cut to its first 40 characters."""
    return repr(field if len(field) <= LONGEST_FIELD else f"{field[:LONGEST_FIELD]}...")


def listed(fields: Sequence[str]) -> str:
    """Fields in quotes for an error message, cut to the first 20."""
    quoted = [shown(field) for field in fields[:MOST_FIELDS]]
    if len(fields) > MOST_FIELDS:
        quoted.append("...")
    return ", ".join(quoted)
