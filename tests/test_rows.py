"""Rows of CSV, TSV and JSONL files as people write them, and the one line that names what is wrong with others."""

import csv
import json

import pytest

from utils.errors import InputError
from utils.rows import column_names, read_columns

TEXTS = [
    "plain",
    "a, b",
    'she said "no"',
    "two\nlines",
    "two\r\nlines",
    "naïve 日本語 🙂",
    "x" * 200_000,
    "a\u2028b\x0cc",
    '5" x',
]


def rows(path, *names, **options):
    return list(read_columns(path, names, **options))


def fields(path, *names):
    return [found for _, found in rows(path, *names)]


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_what_a_csv_writer_writes_is_read_as_it_was(tmp_path, line_end, encoding):
    path = tmp_path / "a.csv"
    with open(path, "w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, lineterminator=line_end)
        writer.writerow(["class", "my text", "unused"])
        writer.writerows(["01" if index % 2 else "1", text, "u"] for index, text in enumerate(TEXTS))
        file.write(line_end * 3)
    assert fields(path, "my text", "class") == [[text, "01" if i % 2 else "1"] for i, text in enumerate(TEXTS)]
    assert column_names(path) == ["class", "my text", "unused"]


def test_a_row_is_named_by_the_line_where_it_begins(tmp_path):
    path = written(tmp_path, "a.csv", 'text,label\n"two\nlines",a\n\nlast,b\n')
    assert rows(path, "text", "label") == [(2, ["two\nlines", "a"]), (5, ["last", "b"])]


def test_a_tsv_has_no_quotes_and_an_empty_last_field(tmp_path):
    path = written(tmp_path, "a.tsv", b'\xef\xbb\xbftext\tlabel\r\n"a\tx\r\n"b ""c"""\t\r\n\r\n')
    assert rows(path, "text", "label") == [(2, ['"a', "x"]), (3, ['"b ""c"""', ""])]


def test_a_tsv_of_one_column(tmp_path):
    assert fields(written(tmp_path, "a.tsv", b"\xef\xbb\xbftext\na b\nc, d\n"), "text") == [["a b"], ["c, d"]]


def test_values_of_jsonl_are_texts_as_they_are_written(tmp_path):
    values = ["1.0", "1", "1e2", "-0.50", "true", "false", "123456789012345678901234567890", '"01"', '"\\u00e9\\n"']
    lines = [f'{{"other": null, "label": {value}, "text": "t"}}' for value in values]
    path = written(tmp_path, "a.jsonl", "\n".join(lines) + "\n\n")
    expected = [*values[:7], "01", "é\n"]
    assert rows(path, "label", strip=False) == [(line, [value]) for line, value in enumerate(expected, start=1)]
    assert column_names(path) == ["other", "label", "text"]


def test_columns_have_synonyms_and_spaces_around(tmp_path):
    path = written(tmp_path, "a.csv", ' text , "score"\n a , 1\n'.replace(', "', ',"'))
    assert list(read_columns(path, ["label", "text"], {"score": "label"})) == [(2, ["1", "a"])]
    assert list(read_columns(path, ["text"], strip=False)) == [(2, [" a "])]


def test_empty_fields_are_rows_and_blank_lines_are_not(tmp_path):
    assert rows(written(tmp_path, "a.csv", 'text\na\n""\n\nb\n'), "text") == [(2, ["a"]), (3, [""]), (5, ["b"])]
    assert rows(written(tmp_path, "a.csv", "text,label\n  \na,\n"), "text", "label") == [(3, ["a", ""])]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\na,b\n".encode("utf-16-le"), r"a\.csv line 1: text in UTF-16 instead of UTF-8"),
        ("a.tsv", "text\tlabel\na\tb\n".encode("utf-16-be"), r"a\.tsv line 1: text in UTF-16 instead of UTF-8"),
        ("a.csv", 'text,label\nfine,a\n"torn,a\nnext,b\n', r"a\.csv line 3: a torn quote"),
        ("a.csv", 'text,label\n"torn,a\n"next",b\n', r"a\.csv line 2: a torn quote"),
        ("a.csv", "text,label\na,b,c\n", r"a\.csv line 2: 3 columns, expected 2"),
        ("a.csv", 'text,label\n"b\nc",d\na\n', r"a\.csv line 4: 1 columns, expected 2"),
        ("a.csv", "text;label\na;b\n", r"a\.csv line 1: columns separated by ;, expected ,"),
        ("a.csv", "text\tlabel\na\tb\n", r"a\.csv line 1: columns separated by tab, expected ,"),
        ("a.tsv", "text,label\na,b\n", r"a\.tsv line 1: columns separated by ,, expected tab"),
        ("a.csv", "text,text,label\na,b,c\n", r"line 1: columns 'text', 'text', 'label', expected 'text', 'label'"),
        ("a.csv", "body,label\na,b\n", r"line 1: columns 'body', 'label', expected 'text', 'label' by name"),
        ("a.csv", "<!DOCTYPE html>\n<html>\n", r"line 1: an HTML page, expected"),
        ("a.csv", "", r"a\.csv: empty, expected rows"),
        ("a.jsonl", "\n\n", r"a\.jsonl: empty, expected rows"),
        ("a.csv", "text,label\na,é\n".encode("latin-1"), r"a\.csv: not UTF-8 text in line 2 \(.* e9\)"),
        ("a.csv", "text,label\na,b\n".encode("utf-16"), r"a\.csv: not UTF-8 text but UTF-16"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "a"}\n', r"line 2: keys 'text', expected 'text', 'label'"),
        ("a.jsonl", '{"text": "a", "label": 1, "label": 2}\n', r"line 1: a key occurs twice, expected a JSON object"),
        ("a.jsonl", '[{"text": "a"}]\n', r"line 1: '\[.*', expected a JSON object a line"),
        ("a.jsonl", '{"text": "a",\n"label": 1}\n', r"a\.jsonl line 1: .*, expected a JSON object a line"),
        ("a.jsonl", "[" * 100_000 + "\n", r"a\.jsonl line 1: .*, expected a JSON object a line"),
        ("a.jsonl", '{"text": null, "label": 1}\n', r"line 1: text is null or NaN, expected a text or"),
        ("a.jsonl", '{"text": NaN, "label": 1}\n', r"line 1: text is null or NaN, expected a text or a number"),
        ("a.jsonl", '{"text": ["a"], "label": 1}\n', r"line 1: text is a list, expected"),
        ("a.jsonl", '{"text": "a", "label": {"a": 1}}\n', r"line 1: label is an object, expected"),
        ("a.jsonl", '{"text": "\\ud800", "label": 1}\n', r"line 1: text is .*lone surrogate"),
        ("a.parquet", "text,label\n", r"a\.parquet: expected a file whose name ends in \.csv, \.tsv, \.jsonl"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, name, content, message):
    path = written(tmp_path, name, content)
    with pytest.raises(InputError, match=message) as error:
        rows(path, "text", "label")
    assert len(str(error.value).splitlines()) == 1
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"a\.csv: no such file"):
        column_names(tmp_path / "a.csv")


def test_long_keys_and_many_columns_are_cut_in_the_message(tmp_path):
    path = written(tmp_path, "a.jsonl", json.dumps({f"{'k' * 100}{i}": 1 for i in range(100)}))
    with pytest.raises(InputError) as error:
        rows(path, "text")
    assert len(str(error.value)) < 1500 + len(str(path))
