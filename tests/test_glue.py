"""The table of tasks and the reader, on what real files hold."""

import numpy as np
import pytest

from scripts import glue_files
from utils.errors import InputError
from utils.readers import read_split
from utils.submission import write_submission
from utils.tasks import TASKS, task_folder

RTE = "index\tsentence1\tsentence2\tlabel"
QQP = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
MNLI_HEAD = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
    "\tsentence1\tsentence2"
)
MNLI_ROW = "0\t1\t1a\tfiction\t( a )\t( b )\t(ROOT a)\t(ROOT b)\tA man.\tA person."
FIVE_HEAD = "\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5"
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
            [f"{MNLI_HEAD}{FIVE_HEAD}\tgold_label", f"{MNLI_ROW}{FIVE}\tentailment"],
            ["A man."],
            ["A person."],
            [2],
        ),
        "test": ("test_matched.tsv", [MNLI_HEAD, MNLI_ROW], ["A man."], ["A person."], [0]),
    },
    "mnlimm": {
        "dev": (
            "dev_mismatched.tsv",
            [f"{MNLI_HEAD}{FIVE_HEAD}\tgold_label", f"{MNLI_ROW}{FIVE}\tcontradiction"],
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
def test_every_official_layout_is_read_without_a_warning(tmp_path, caplog, task, split):
    name, lines, first, second, labels = LAYOUTS[task][split]
    write(tmp_path, task, name, lines)
    assert read_split(task, str(tmp_path), split) == (first, second, labels)
    assert caplog.text == ""


def test_all_tasks_are_tried_above():
    assert set(LAYOUTS) == set(TASKS)


# title, metric, and a label as the train file writes it -> the name of its class id: GLUE's, not the code's
FACTS = {
    "rte": ("RTE", "acc", {"not_entailment": (0, "not_entailment"), "entailment": (1, "entailment")}),
    "mrpc": ("MRPC", "acc_and_f1", {"0": (0, "not_equivalent"), "1": (1, "equivalent")}),
    "stsb": ("STS-B", "corr", {}),
    "sst2": ("SST-2", "acc", {"0": (0, "negative"), "1": (1, "positive")}),
    "qnli": ("QNLI", "acc", {"not_entailment": (0, "not_entailment"), "entailment": (1, "entailment")}),
    "qqp": ("QQP", "acc_and_f1", {"0": (0, "not_duplicate"), "1": (1, "duplicate")}),
    "mnli": (
        "MNLI-m",
        "acc",
        {"contradiction": (0, "contradiction"), "neutral": (1, "neutral"), "entailment": (2, "entailment")},
    ),
    "mnlimm": (
        "MNLI-mm",
        "acc",
        {"contradiction": (0, "contradiction"), "neutral": (1, "neutral"), "entailment": (2, "entailment")},
    ),
    "cola": ("CoLA", "matthews_corrcoef", {"0": (0, "unacceptable"), "1": (1, "acceptable")}),
    "wnli": ("WNLI", "acc", {"0": (0, "not_entailment"), "1": (1, "entailment")}),
}
TRAIN_ROW = {  # of each task's train file, without its label
    "rte": (RTE, "0\ta\tb\t{}"),
    "mrpc": ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "{}\t1\t2\ta\tb"),
    "sst2": ("sentence\tlabel", "a\t{}"),
    "qnli": ("index\tquestion\tsentence\tlabel", "0\ta\tb\t{}"),
    "qqp": (QQP, "0\t1\t2\ta\tb\t{}"),
    "mnli": (f"{MNLI_HEAD}\tlabel1\tgold_label", f"{MNLI_ROW}\tx\t{{}}"),
    "mnlimm": (f"{MNLI_HEAD}\tlabel1\tgold_label", f"{MNLI_ROW}\tx\t{{}}"),
    "cola": ("gj04\t1\t\tA.", "gj04\t{}\t*\ta"),
    "wnli": (RTE, "0\ta\tb\t{}"),
}


def test_titles_metrics_and_number_of_labels_are_glues():
    assert {name: (task.title, task.metric, len(task.labels)) for name, task in TASKS.items()} == {
        name: (title, metric, len(labels)) for name, (title, metric, labels) in FACTS.items()
    }


@pytest.mark.parametrize(
    ("task", "label", "number", "name"),
    [(task, label, *meant) for task, (*_, labels) in FACTS.items() for label, meant in labels.items()],
)
def test_each_label_is_read_as_its_class_and_its_class_is_written_as_the_label(tmp_path, task, label, number, name):
    header, row = TRAIN_ROW[task]
    write(tmp_path, task, "train.tsv", [header, row.format(label)])
    assert read_split(task, str(tmp_path), "train").labels[-1] == number
    assert TASKS[task].labels[number] == name
    write_submission(tmp_path / "file.tsv", TASKS[task], np.array([number]))
    assert (tmp_path / "file.tsv").read_text() == f"index\tprediction\n0\t{label}\n"


def test_rows_are_counted_as_glues_authors_do():
    assert glue_files.ROWS == {
        "ax": {"test": 1104},
        "rte": {"train": 2490, "dev": 277, "test": 3000},
        "mrpc": {"train": 3668, "dev": 408, "test": 1725},
        "stsb": {"train": 5749, "dev": 1500, "test": 1379},
        "sst2": {"train": 67349, "dev": 872, "test": 1821},
        "qnli": {"train": 104743, "dev": 5463, "test": 5463},
        "qqp": {"train": 363846, "dev": 40430, "test": 390965},
        "mnli": {
            "train": 392702,
            "dev_matched": 9815,
            "dev_mismatched": 9832,
            "test_matched": 9796,
            "test_mismatched": 9847,
        },
        "cola": {"train": 8551, "dev": 1043, "test": 1063},
        "wnli": {"train": 635, "dev": 71, "test": 146},
    }


MULTINLI = (  # as New York University gives it out
    "gold_label\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\tsentence1\tsentence2"
    "\tpromptID\tpairID\tgenre\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5"
)
SNLI_HEAD = MNLI_HEAD.replace("promptID", "captionID").replace("\tgenre", "")
BY_NAME = {  # task, lines of its train file, first, second, labels, the columns in the warning as left out
    "a data frame's": (
        "rte",
        ["sentence1\tsentence2\tlabel", "a\tb\tentailment", "c\td\tnot_entailment"],
        *(["a", "c"], ["b", "d"], [1, 0], "none"),
    ),
    "a data frame's with its index": (
        "rte",
        [f"\t{RTE}", "0\t0\ta\tb\tentailment", "1\t1\tc\td\tnot_entailment"],
        *(["a", "c"], ["b", "d"], [1, 0], "'', 'index'"),
    ),
    "label first": ("rte", ["label\tsentence1\tsentence2\tidx", "entailment\ta\tb\t0"], ["a"], ["b"], [1], "'idx'"),
    "second sentence first": ("rte", ["sentence2\tsentence1\tlabel", "b\ta\tentailment"], ["a"], ["b"], [1], "none"),
    "WNLI": ("wnli", ["sentence1\tsentence2\tlabel\tidx", "a\tb\t1\t0"], ["a"], ["b"], [1], "'idx'"),
    "WiC's names with WNLI's": (
        "wnli",
        ["label\tword\tsentence1\tsentence2", "1\tw\ta\tb"],
        *(["a"], ["b"], [1], "'word'"),
    ),
    "MRPC of three columns": ("mrpc", ["sentence1\tsentence2\tlabel", "a\tb\t1"], ["a"], ["b"], [1], "none"),
    "MRPC with an index": (
        "mrpc",
        ["\tQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", "0\t1\t7\t8\ta\tb"],
        *(["a"], ["b"], [1], "'', '#1 ID', '#2 ID'"),
    ),
    "STS-B's label": ("stsb", ["sentence1\tsentence2\tlabel", "a\tb\t3.8"], ["a"], ["b"], [3.8], "none"),
    "STS-B's score": ("stsb", ["score\tsentence1\tsentence2", "3.8\ta\tb"], ["a"], ["b"], [3.8], "none"),
    "SST-2": ("sst2", ["idx\tlabel\tsentence", "7\t1\ta"], ["a"], None, [1], "'idx'"),
    "QNLI": ("qnli", ["label\tsentence\tquestion", "entailment\tb\ta"], ["a"], ["b"], [1], "none"),
    "QQP": ("qqp", ["question1\tquestion2\tis_duplicate", "a\tb\t1"], ["a"], ["b"], [1], "none"),
    "QQP's label": ("qqp", ["question1\tquestion2\tlabel\tidx", "a\tb\t1\t0"], ["a"], ["b"], [1], "'idx'"),
    "SNLI": (
        "mnli",
        [f"{SNLI_HEAD}\tlabel1\tgold_label", "0\tc\tp\tb1\tb2\tp1\tp2\ta\tb\tneutral\tentailment"],
        *(["a"], ["b"], [2], "'index', 'captionID', 'pairID', "),
    ),
    "MultiNLI": (
        "mnli",
        [MULTINLI, "contradiction\tb1\tb2\tp1\tp2\ta\tb\t31193\t31193n\tfiction\tneutral\t\t\t\t"],
        *(["a"], ["b"], [0], "'sentence1_binary_parse', "),
    ),
    "MNLI's label": ("mnli", ["sentence1\tsentence2\tlabel", "a\tb\tneutral"], ["a"], ["b"], [1], "none"),
    "CoLA": ("cola", ["sentence\tlabel\tidx", "a\t1\t0", "b\t0\t1"], ["a", "b"], None, [1, 0], "'idx'"),
}


@pytest.mark.parametrize("case", BY_NAME)
def test_columns_are_taken_by_name_in_any_order(tmp_path, caplog, case):
    task, lines, first, second, labels, left_out = BY_NAME[case]
    write(tmp_path, task, "train.tsv", lines)
    assert read_split(task, str(tmp_path), "train") == (first, second, labels)
    [record] = caplog.records
    assert f"{tmp_path / task / 'train.tsv'}: not GLUE's columns, taken by name: " in record.message
    assert f"left out: {left_out}" in record.message


@pytest.mark.parametrize(
    ("task", "lines", "first", "second"),
    [
        ("sst2", ["sentence\tlabel", "a\t1", "b\t0"], ["a", "b"], None),
        ("rte", ["sentence1\tsentence2\tlabel", "a\tb\t-1"], ["a"], ["b"]),
        ("mrpc", ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1\t7\t8\ta\tb"], ["a"], ["b"]),
        ("qqp", [QQP, "0\t1\t2\ta\tb\t1"], ["a"], ["b"]),
        ("cola", ["sentence\tlabel", "a\t1"], ["a"], None),
    ],
)
def test_labels_of_a_test_file_are_left_out_with_a_warning(tmp_path, caplog, task, lines, first, second):
    write(tmp_path, task, "test.tsv", lines)
    assert read_split(task, str(tmp_path), "test") == (first, second, [0] * len(first))
    assert "test.tsv: not GLUE's columns" in caplog.text
    label = {"mrpc": "'Quality'", "qqp": "'is_duplicate'"}.get(task, "'label'")
    assert label in caplog.text.split("left out: ")[1]


def test_a_test_file_in_another_order_is_refused(tmp_path):
    write(tmp_path, "rte", "test.tsv", ["index\tsentence1\tsentence2", "0\ta\tb", "2\tc\td", "1\te\tf"])
    with pytest.raises(InputError, match=r"test\.tsv line 3: index '2', expected 1: predictions are submitted in this"):
        read_split("rte", str(tmp_path), "test")


RTE_EXPECTED = (
    "expected 'index', 'sentence1', 'sentence2', 'label' "
    "(in any order, but sentence1, sentence2, label by name, once each)"
)
NOT_READ = {  # task, file, lines, message after the file's name
    "no header": (
        "rte",
        "train",
        ["0\ta\tb\tentailment"],
        f" line 1: columns '0', 'a', 'b', 'entailment', {RTE_EXPECTED}",
    ),
    "no header, test": (
        "rte",
        "test",
        ["0\ta\tb"],
        " line 1: columns '0', 'a', 'b', expected 'index', 'sentence1', 'sentence2' (in",
    ),
    "no header, SST-2": ("sst2", "train", ["good\t1"], " line 1: columns 'good', '1', expected 'sentence', 'label' ("),
    "no label": (
        "rte",
        "dev",
        ["index\tsentence1\tsentence2", "0\ta\tb"],
        " line 1: columns 'index', 'sentence1', 'sent",
    ),
    "other names": ("rte", "dev", ["premise\thypothesis\tlabel", "a\tb\tentailment"], " line 1: columns 'premise', 'h"),
    "WiC": ("wnli", "dev", ["word\tindices\tcontext1\tcontext2\tlabel", "w\t1\ta\tb\t1"], " line 1: columns 'word', "),
    "QNLI's as RTE": ("rte", "dev", ["index\tquestion\tsentence\tlabel", "0\ta\tb\tentailment"], " line 1: columns "),
    "a name twice": (
        "rte",
        "dev",
        ["sentence1\tsentence1\tsentence2\tlabel", "a\tb\tc\tentailment"],
        " line 1: columns ",
    ),
    "two labels": ("mnli", "train", ["sentence1\tsentence2\tlabel\tgold_label", "a\tb\tneutral\tneutral"], " line 1: "),
    "two scores": ("stsb", "train", ["sentence1\tsentence2\tlabel\tscore", "a\tb\t1\t2"], " line 1: columns "),
    "commas": (
        "rte",
        "dev",
        ["sentence1,sentence2,label", "a,b,entailment"],
        f" line 1: columns 'sentence1,sentence2,label', {RTE_EXPECTED}",
    ),
    "quoted header": (
        "sst2",
        "dev",
        ['"sentence"\t"label"', '"a"\t"1"'],
        " line 1: columns '\"sentence\"', '\"label\"', ex",
    ),
    "STS-B as first given out": (
        "stsb",
        "train",
        ["main-captions\tMSRvid\t2012test\t0001\t5.000\tA plane is taking off.\tAn air plane is taking off."],
        " line 1: columns 'main-captions', 'MSRvid', '2012test', '0001', '5.000', 'A plane is taking off.', ",
    ),
    "HTML": (
        "mrpc",
        "train",
        ["<!DOCTYPE html>", "<html>"],
        ": an HTML page, expected a file with the columns 'Quality', '#1 ID', '#2 ID', '#1 String', '#2 String'",
    ),
    "git-lfs": (
        "sst2",
        "train",
        ["version https://git-lfs.github.com/spec/v1", "oid sha256:0", "size 941277"],
        ": a git-lfs pointer, to be fetched with git lfs pull, expected a file with the columns 'sentence', 'label'",
    ),
    "git-lfs, CoLA": ("cola", "train", ["version https://git-lfs.github.com/spec/v1"], ": a git-lfs pointer, to be"),
    "CoLA of three": (
        "cola",
        "train",
        ["gj04\t1\tOur friends."],
        " line 1: columns 'gj04', '1', 'Our friends.', expected 'source', 'label', 'mark', 'sentence' "
        "(no header, label 0 or 1, mark * or none; or label, sentence by name, once each)",
    ),
    "CoLA, label in front": ("cola", "dev", ["1\tgj04\t\tOur friends."], " line 1: columns '1', 'gj04', '', 'Our f"),
    "CoLA, sentence third": ("cola", "dev", ["gj04\t1\tOur friends.\t*"], " line 1: columns 'gj04', '1', 'Our f"),
    "CoLA with an index": (
        "cola",
        "dev",
        ["0\tgj04\t1\t\tOur friends."],
        " line 1: columns '0', 'gj04', '1', '', 'Our",
    ),
    "CoLA, another layout below": (
        "cola",
        "dev",
        ["gj04\t1\t?*\tA.", "gj04\t1\tA.\t*"],
        " line 2: mark 'A.', expected * or nothing",
    ),
    "CoLA's train as test": ("cola", "test", ["gj04\t1\t\tOur friends."], " line 1: columns 'gj04', '1', '', 'Our"),
    "a long field": ("sst2", "dev", ["x" * 41, "b"], f" line 1: columns '{'x' * 40}...', expected 'sentence'"),
    "many fields": (
        "sst2",
        "dev",
        ["\t".join("x" * 21), "b"],
        f" line 1: columns {20 * '{x}, '.format(x=repr('x'))}..., ex",
    ),
    "a long label": (
        "qqp",
        "dev",
        [QQP, f"0\t1\t2\ta\tb\t{'word ' * 30}"],
        f" line 2: label '{'word ' * 8}...', expected one of 0, 1",
    ),
    "a long score": (
        "stsb",
        "dev",
        ["sentence1\tsentence2\tscore", f"a\tb\t{'9' * 50}"],
        f" line 2: score '{'9' * 40}...', ",
    ),
}


@pytest.mark.parametrize("case", NOT_READ)
def test_another_layout_is_refused_with_what_was_found_and_expected(tmp_path, case):
    task, split, lines, message = NOT_READ[case]
    write(tmp_path, task, name := f"{split}{TASKS[task].suffix if split != 'train' else ''}.tsv", lines)
    with pytest.raises(InputError) as error:
        read_split(task, str(tmp_path), split)
    assert str(error.value).startswith(f"{tmp_path / task / name}{message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("label", ["0", "1", "2", "-1"])
@pytest.mark.parametrize("task", ["rte", "qnli", "mnli", "mnlimm"])
def test_numbers_for_labels_that_have_names_are_refused(tmp_path, task, label):
    header, row = TRAIN_ROW[task]
    write(tmp_path, task, "train.tsv", [header, row.format(label)])
    reason = r"entailment by name: sources differ in which number is which label$"
    with pytest.raises(InputError, match=rf"train.tsv line 2: label '{label}', expected one of .*{reason}"):
        read_split(task, str(tmp_path), "train")


def test_fields_that_a_csv_writer_has_quoted_are_counted_and_left_as_they_are(tmp_path, caplog):
    header, quoted = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", '"He said ""yes"" to it ."'
    official = '" I said so . "'  # a sentence that is a quotation
    lines = [
        header,
        f'1\t1\t2\t{official}\ta " b',
        f'1\t1\t2\t{quoted}\t"""Yes"" , he said ."',
        f"1\t1\t2\tx\t{quoted}",
    ]
    write(tmp_path, "mrpc", "train.tsv", lines)
    split = read_split("mrpc", str(tmp_path), "train")
    assert split.first == [official, quoted, "x"]
    assert split.second == ['a " b', '"""Yes"" , he said ."', quoted]
    [record] = caplog.records
    assert record.message.startswith(
        f"{tmp_path / 'mrpc' / 'train.tsv'}: 3 fields with a CSV writer's quotes, the first in "
    )
    assert record.message.endswith("line 3, read as they stand: write it unquoted")


@pytest.mark.parametrize("field", ['"', '""', '"a', 'a"', '"a" b "c"', '"a "" b', 'a ""b""', '"" a ""', '"a"b"'])
def test_other_quotes_raise_no_warning(tmp_path, caplog, field):
    write(tmp_path, "sst2", "train.tsv", ["sentence\tlabel", f"{field}\t1"])
    assert read_split("sst2", str(tmp_path), "train").first == [field]
    assert caplog.text == ""


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


def test_fields_are_stripped_and_an_empty_one_counts_with_a_warning(tmp_path, caplog):
    write(tmp_path, "rte", "test.tsv", ["index\tsentence1\tsentence2", "0\t a \t"])
    assert read_split("rte", str(tmp_path), "test") == (["a"], [""], [0])
    assert "1 rows with an empty text, the first in line 2" in caplog.text


@pytest.mark.parametrize(("highest", "is_warned"), [(1, True), (5, False)])
def test_scores_of_another_scale_are_warned_of(tmp_path, caplog, highest, is_warned):
    rows = (f"a\tb\t{highest * index / 100}" for index in range(101))
    write(tmp_path, "stsb", "train.tsv", ["sentence1\tsentence2\tscore", *rows])
    assert len(read_split("stsb", str(tmp_path), "train").labels) == 101
    assert ("no score above 1, expected GLUE's from 0 to 5" in caplog.text) == is_warned


def test_the_first_rows_only(tmp_path):
    write(tmp_path, "rte", "train.tsv", [RTE, *(f"{i}\ts{i}\tt\tentailment" for i in range(9))])
    assert read_split("rte", str(tmp_path), "train", max_examples=3).first == ["s0", "s1", "s2"]


def test_qqp_rows_broken_in_two_are_left_out_as_in_the_official_counts(tmp_path, caplog):
    write(tmp_path, "qqp", "train.tsv", [QQP, "1\t2\t3\tWhy?\tHow?\t1", "4\t5", "6\t7\t8\tWho?\tI?\t0"])
    assert read_split("qqp", str(tmp_path), "train").labels == [1, 0]
    assert "1 rows with missing columns left out" in caplog.text


@pytest.mark.parametrize(
    ("task", "folders"),  # the later, the better
    [
        ("rte", ["RTE", "rte"]),
        ("mrpc", ["MRPC", "mrpc"]),
        ("stsb", ["STS-B", "stsb"]),
        ("sst2", ["SST-2", "sst2"]),
        ("qnli", ["QNLI", "qnli"]),
        ("qqp", ["QQP", "qqp"]),
        ("mnli", ["MNLI", "mnli"]),
        ("mnlimm", ["MNLI", "mnli", "mnlimm"]),
        ("cola", ["CoLA", "cola"]),
        ("wnli", ["WNLI", "wnli"]),
    ],
)
def test_folders_are_found_as_glues_zips_unpack(tmp_path, task, folders):
    for folder in folders:
        (tmp_path / folder).mkdir()
        assert task_folder(task, str(tmp_path)) == tmp_path / folder


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
        ("cola", ["gj04\t1\t\tOur friends.", "gj04\t1\tOur friends."], r"dev.tsv line 2: 3 columns, expected 4"),
        ("cola", ["gj04\t1\t\tOur friends.", "gj04\t2\t\tOur."], r"dev.tsv line 2: label '2', expected one of 0, 1"),
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
