"""The table of tasks and the reader, on what real files hold."""

import numpy as np
import pytest

from utils.errors import InputError
from utils.glue import TASKS, read_split, task_folder, write_submission

MNLI_HEAD = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
    "\tsentence1\tsentence2"
)
MNLI_ROW = "0\t1\t1a\tfiction\t( a )\t( b )\t(ROOT a)\t(ROOT b)\tA man.\tA person."
FIVE = "\tneutral" * 5  # each annotator's label, in dev
STSB_HEAD = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
STSB_ROW = "0\tmain\tMSRvid\t2012\t0\tnone\tnone\tA plane.\tAn air plane."
LAYOUTS = {  # task -> split -> (file name, lines, first, second, labels)
    "rte": {
        "train": (
            "train.tsv",
            ["index\tsentence1\tsentence2\tlabel", "0\tA b.\tC.\tentailment", "1\tD\tE\tnot_entailment"],
            ["A b.", "D"],
            ["C.", "E"],
            [1, 0],
        ),
        "test": ("test.tsv", ["index\tsentence1\tsentence2", "0\tA b.\tC."], ["A b."], ["C."], [0]),
    },
    "mrpc": {
        "dev": (
            "dev.tsv",
            ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", '1\t7\t8\tHe said " no .\tNo'],
            ['He said " no .'],
            ["No"],
            [1],
        ),
        "test": ("test.tsv", ["index\t#1 ID\t#2 ID\t#1 String\t#2 String", "0\t7\t8\tX\tY"], ["X"], ["Y"], [0]),
    },
    "stsb": {
        "train": ("train.tsv", [f"{STSB_HEAD}\tscore", f"{STSB_ROW}\t3.800"], ["A plane."], ["An air plane."], [3.8]),
        "test": ("test.tsv", [STSB_HEAD, STSB_ROW], ["A plane."], ["An air plane."], [0]),
    },
    "sst2": {
        "train": (
            "train.tsv",
            ["sentence\tlabel", "hide new secretions \t0", "fun\t1"],
            ["hide new secretions", "fun"],
            None,
            [0, 1],
        ),
        "test": ("test.tsv", ["index\tsentence", "0\tuneasy"], ["uneasy"], None, [0]),
    },
    "qnli": {
        "dev": (
            "dev.tsv",
            ["index\tquestion\tsentence\tlabel", "0\tWhat?\tThat.\tnot_entailment"],
            ["What?"],
            ["That."],
            [0],
        ),
        "test": ("test.tsv", ["index\tquestion\tsentence", "0\tWhat?\tThat."], ["What?"], ["That."], [0]),
    },
    "qqp": {
        "train": (
            "train.tsv",
            ["id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "1\t2\t3\tWhy?\tHow?\t1"],
            ["Why?"],
            ["How?"],
            [1],
        ),
        "test": ("test.tsv", ["id\tquestion1\tquestion2", "0\tWhy?\tHow?"], ["Why?"], ["How?"], [0]),
    },
    "mnli": {
        "train": (
            "train.tsv",
            [f"{MNLI_HEAD}\tlabel1\tgold_label", f"{MNLI_ROW}\tneutral\tneutral"],
            ["A man."],
            ["A person."],
            [1],
        ),
        "dev": (
            "dev_matched.tsv",
            [f"{MNLI_HEAD}{FIVE}\tgold_label", f"{MNLI_ROW}{FIVE}\tentailment"],
            ["A man."],
            ["A person."],
            [2],
        ),
        "test": ("test_matched.tsv", [MNLI_HEAD, MNLI_ROW], ["A man."], ["A person."], [0]),
    },
    "mnlimm": {
        "dev": (
            "dev_mismatched.tsv",
            [f"{MNLI_HEAD}\tlabel1\tgold_label", f"{MNLI_ROW}\tneutral\tcontradiction"],
            ["A man."],
            ["A person."],
            [0],
        ),
        "test": ("test_mismatched.tsv", [MNLI_HEAD, MNLI_ROW], ["A man."], ["A person."], [0]),
    },
    "cola": {
        "train": (
            "train.tsv",
            ["gj04\t1\t\tOur friends won't buy it.", "gj04\t0\t*\tThey it bought."],
            ["Our friends won't buy it.", "They it bought."],
            None,
            [1, 0],
        ),
        "dev": ("dev.tsv", ["gj04\t0\t*\tBought they."], ["Bought they."], None, [0]),
        "test": ("test.tsv", ["index\tsentence", "0\tBill whistled."], ["Bill whistled."], None, [0]),
    },
    "wnli": {
        "train": (
            "train.tsv",
            ["index\tsentence1\tsentence2\tlabel", "0\tI stuck a pin.\tThe pin.\t1"],
            ["I stuck a pin."],
            ["The pin."],
            [1],
        ),
        "test": ("test.tsv", ["index\tsentence1\tsentence2", "0\tI.\tThe."], ["I."], ["The."], [0]),
    },
}
CASES = [(task, split) for task, splits in LAYOUTS.items() for split in splits]


def write(folder, task, name, lines, end="\n"):
    (folder / task).mkdir(exist_ok=True)
    (folder / task / name).write_bytes(("\n".join(lines) + end).encode())


@pytest.mark.parametrize(("task", "split"), CASES)
def test_every_layout_is_read(tmp_path, task, split):
    name, lines, first, second, labels = LAYOUTS[task][split]
    write(tmp_path, task, name, lines)
    assert read_split(task, str(tmp_path), split) == (first, second, labels)


def test_all_tasks_are_tried_above():
    assert set(LAYOUTS) == set(TASKS)


RTE = "index\tsentence1\tsentence2\tlabel"


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_any_end_of_file_keeps_every_row(tmp_path, end):
    write(tmp_path, "rte", "dev.tsv", [RTE, "0\ta\tb\tentailment", "1\ta\tb\tentailment"], end)
    assert read_split("rte", str(tmp_path), "dev").labels == [1, 1]


@pytest.mark.parametrize(
    "text",
    [
        'an "open quote',
        'a \\t \\n "" \\',
        "&amp; &lt;b&gt;",
        "line\u2028separator",
        "next\x85line",
        "form\x0cfeed",
        "a\rb",
        "\ufeffinside",
        "e\u0301",
    ],
)
def test_texts_are_left_as_they_are(tmp_path, text):
    write(tmp_path, "rte", "dev.tsv", [RTE, f"0\tx{text}x\ty\tentailment", "1\ta\tb\tnot_entailment"])
    assert read_split("rte", str(tmp_path), "dev") == ([f"x{text}x", "a"], ["y", "b"], [1, 0])


def test_fields_are_stripped_but_an_empty_one_counts(tmp_path):
    write(tmp_path, "rte", "test.tsv", ["index\tsentence1\tsentence2", "0\t a \t"])
    assert read_split("rte", str(tmp_path), "test") == (["a"], [""], [0])


def test_the_first_rows_only(tmp_path):
    write(tmp_path, "rte", "train.tsv", [RTE, *(f"{i}\ts{i}\tt\tentailment" for i in range(9))])
    assert read_split("rte", str(tmp_path), "train", max_examples=3).first == ["s0", "s1", "s2"]


def test_qqp_rows_broken_in_two_are_left_out_as_in_the_official_counts(tmp_path, caplog):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
    write(tmp_path, "qqp", "train.tsv", [header, "1\t2\t3\tWhy?\tHow?\t1", "4\t5", "6\t7\t8\tWho?\tI?\t0"])
    assert read_split("qqp", str(tmp_path), "train").labels == [1, 0]
    assert "1 rows with missing columns left out" in caplog.text


def test_mnlimm_falls_back_on_mnlis_folder(tmp_path):
    (tmp_path / "mnli").mkdir()
    assert task_folder("mnlimm", str(tmp_path)) == tmp_path / "mnli"
    (tmp_path / "mnlimm").mkdir()
    assert task_folder("mnlimm", str(tmp_path)) == tmp_path / "mnlimm"


@pytest.mark.parametrize(
    ("task", "lines", "message"),
    [
        ("rte", [RTE, "0\ta\tb\tentailment", "1\ta\tb"], r"dev.tsv line 3: 3 columns, expected 4"),
        ("rte", [RTE, "0\ta\tb\tc\tentailment"], r"dev.tsv line 2: 5 columns, expected 4"),
        ("rte", [RTE, "0\ta\tb\tyes"], r"dev.tsv line 2: label 'yes', expected one of not_entailment, entailment"),
        ("rte", [RTE, "0\ta\tb\t"], r"dev.tsv line 2: label '', expected"),
        ("rte", [RTE], r"dev.tsv: no rows"),
        ("rte", [""], r"dev.tsv: no rows"),
        ("stsb", [f"{STSB_HEAD}\tscore", f"{STSB_ROW}\tfive"], r"line 2: score 'five', expected a number from 0 to 5"),
        ("stsb", [f"{STSB_HEAD}\tscore", f"{STSB_ROW}\t5.1"], r"line 2: score '5.1', expected a number from 0 to 5"),
        ("stsb", [f"{STSB_HEAD}\tscore", f"{STSB_ROW}\tnan"], r"line 2: score 'nan', expected a number from 0 to 5"),
        ("cola", ["gj04\t1\tOur friends."], r"dev.tsv line 1: 3 columns, expected 4"),
    ],
)
def test_a_bad_row_is_named(tmp_path, task, lines, message):
    write(tmp_path, task, "dev.tsv", lines)
    with pytest.raises(InputError, match=message):
        read_split(task, str(tmp_path), "dev")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"rte: no such folder.*download_glue.sh rte"):
        read_split("rte", str(tmp_path), "dev")
    write(tmp_path, "rte", "train.tsv", [RTE])
    with pytest.raises(InputError, match=r"dev.tsv: no such file, found train.tsv"):
        read_split("rte", str(tmp_path), "dev")
    (tmp_path / "rte" / "dev.tsv").write_bytes(b"index\ta\tb\tlabel\n0\t\xff\xfe\tb\tentailment\n")
    with pytest.raises(InputError, match=r"dev.tsv: not UTF-8 text"):
        read_split("rte", str(tmp_path), "dev")


def test_submission_files_hold_labels_by_name_and_clipped_scores(tmp_path):
    write_submission(tmp_path / "a.tsv", TASKS["mnli"], np.array([2, 0]))
    assert (tmp_path / "a.tsv").read_text() == "index\tprediction\n0\tentailment\n1\tcontradiction\n"
    write_submission(tmp_path / "b.tsv", TASKS["mrpc"], np.array([1, 0]))
    assert (tmp_path / "b.tsv").read_text() == "index\tprediction\n0\t1\n1\t0\n"
    write_submission(tmp_path / "c.tsv", TASKS["stsb"], np.array([5.7, -0.2, 2.5]))
    assert (tmp_path / "c.tsv").read_text() == "index\tprediction\n0\t5.000\n1\t0.000\n2\t2.500\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tsv", "b.tsv", "c.tsv"]
