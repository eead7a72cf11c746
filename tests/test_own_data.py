"""Tasks of one's own: scripts/add_task.py, and all that --task_name takes them through."""

import csv
import fcntl
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import WORDS, refused, sentence, small_config, write_task

import run_distillation
import run_finetuning
import run_pruning
import run_rewinding
import run_sparsification
from models.bert import PrunableBert
from scripts import add_task, benchmark, report, report_data, report_tables, report_words, sweep
from utils.cache import load_examples
from utils.errors import InputError
from utils.readers import read_split
from utils.tasks import Sizes, find_task, split_path, task_of

QUICK = ["--num_train_epochs", "1", "--learning_rate", "1e-3", "--log_interval", "10", "--use_cpu"]
STUDENT = ["--student_layer", "2", "--use_cpu"]
CLASSES = ("1", "01", 'gut, "sehr" | ja')
REWIND = Path("outputs/rewind/layer_dropped")


def write_csv(path, header, rows, **options):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, **options).writerows([header, *rows])


def reviews(path, rows=60, labels=CLASSES):
    """Texts with commas, quotes and line breaks, whose first word says the class."""
    rng = random.Random(rows)
    texts = [f'{WORDS[index % len(labels)]}, "{sentence(rng, 3)}"\n{index}' for index in range(rows)]
    write_csv(path, ["id", "text", "class"], [(i, text, labels[i % len(labels)]) for i, text in enumerate(texts)])


def percents(path, rows=60):
    """Pairs with a number from 0 to 100, which their first word decides."""
    rng = random.Random(rows)
    with open(path, "w", encoding="utf-8") as file:
        for index in range(rows):
            row = {"percent": index % 5 * 25, "first": f"{WORDS[index % 5]} {index}", "second": sentence(rng, 2)}
            file.write(json.dumps(row) + "\n")


def add(*flags):
    add_task.main(list(map(str, flags)))


def add_reviews(*flags):
    reviews("all.csv")
    write_csv("unseen.csv", ["text"], [[f"{WORDS[0]} it"], [WORDS[1]], ["w2,\nw3"]])
    add("reviews", "--train", "all.csv", "--text_columns", "text", "--label_column", "class", *flags)


def add_percents():
    percents("all.jsonl")
    percents("unseen.jsonl", 4)
    columns = ["--text_columns", "first", "second", "--label_column", "percent"]
    add("percents", "--train", "all.jsonl", "--test", "unseen.jsonl", *columns, "--regression")


def run_all_stages(name, model):
    task = ["--task_name", name]
    run_finetuning.main([*task, *QUICK, "--model_path", str(model)])
    run_pruning.main([*task, "--use_cpu"])
    run_distillation.main([*task, *QUICK, *STUDENT])
    run_sparsification.main([*task, *STUDENT])
    run_rewinding.main([*task, *QUICK, *STUDENT, "--teacher_sparsity", "0", "50", "--do_test"])
    return REWIND / f"kd_2_{name}_0.5"


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_json(path):
    return json.loads(path.read_text())


def test_classes_of_a_csv_go_through_all_stages(in_tmp_path, bert_folder, capsys):
    add_reviews("--metric", "macro_f1", "--test", "unseen.csv")
    folder = run_all_stages("reviews", bert_folder)

    # results in the task's metric, with its definition beside them
    metrics = read_json(folder / "metrics.json")
    assert set(metrics["sparsity"]["50"]["dev"]) == {"macro_f1", "acc"}
    labels = ["01", "1", 'gut, "sehr" | ja']
    assert read_json(folder / "ckpt_0/args.json")["task"] == {
        **{"text_columns": ["text"], "label_column": "class"},
        **{"labels": sorted(labels), "metric": "macro_f1"},
    }
    config = read_json(folder / "ckpt_0/config.json")
    assert config["id2label"] == dict(zip("012", labels, strict=True))
    assert "score_range" not in config
    assert "trained otherwise" not in (folder / "log.txt").read_text()

    # the test set, which has no labels
    predictions = read_csv(folder / "reviews.csv")
    assert len(predictions) == 3
    assert list(predictions[0]) == ["label", *(f"probability of {label}" for label in labels)]
    for row in predictions:
        found = [float(row[f"probability of {label}"]) for label in labels]
        assert sum(found) == pytest.approx(1, abs=2e-6)
        assert labels[np.argmax(found)] == row["label"]

    # a changed definition is another setting, whichever stage reads what was made with the old one
    path = Path("datasets/reviews/task.json")
    before = path.read_text()
    path.write_text(before.replace("macro_f1", "acc"))
    again = refused(run_rewinding, capsys, "--task_name", "reviews", *QUICK, *STUDENT)
    assert "chosen and measured on other rows of dev: metric of task.json macro_f1, now acc" in again
    again = refused(run_finetuning, capsys, "--task_name", "reviews", *QUICK, "--model_path", str(bert_folder))
    assert "holds a run with other arguments: metric of task.json macro_f1, now acc" in again
    path.write_text(before)

    # without the data, the results stay readable
    card = (folder / "ckpt_0" / "README.md").read_text()
    assert '| classes | 01, 1, gut, "sehr" \\| ja |' in card
    assert "GLUE" not in card
    shutil.rmtree("datasets")
    found = list(report_data.checkpoints([Path("outputs")]))
    rows = report_data.collect(found)
    assert {(row.task, row.metric) for row in rows} == {("reviews", "macro_f1")}
    assert report_tables.results_table(rows, {}, "").header[2].splitlines()[:3] == ["reviews", "macro F1", "6 rows"]
    assert report_tables.settings_table(report_data.settings(found)).header == ("setting", "reviews")
    assert "points of macro F1 on reviews" in report_words.conclusion(rows)[0]


def test_scores_of_jsonl_go_through_all_stages(in_tmp_path, bert_folder, capsys):
    add_percents()
    folder = run_all_stages("percents", bert_folder)
    assert "from 0 to 100" in (folder / "ckpt_50" / "README.md").read_text()
    assert read_json(folder / "ckpt_50/config.json")["score_range"] == [0, 100]
    assert read_json(folder / "metrics.json")["sparsity"]["0"]["dev"].keys() == {
        "corr",
        "pearson_corr",
        "spearman_corr",
    }
    scores = [float(row["score"]) for row in read_csv(folder / "percents.csv")]
    assert len(scores) == 4
    assert max(scores) > 5

    # a teacher of other scores is none of this task's
    path = Path("teacher_of_stars")
    shutil.copytree(folder / "ckpt_0", path)
    (path / "args.json").unlink()
    (path / "config.json").write_text(json.dumps({**read_json(path / "config.json"), "score_range": [1, 5]}))
    line = refused(run_pruning, capsys, "--task_name", "percents", "--model_path", str(path), "--output_dir", "other")
    assert "teacher_of_stars: its scores have the range [1, 5], expected this task's [0.0, 100.0]" in line


def test_scores_are_learnt_from_0_to_5_and_predicted_in_their_own_range(in_tmp_path):
    add_percents()
    task = find_task("percents", "datasets")
    split = read_split("percents", "datasets", "dev")
    written = [float(row["percent"]) for row in read_csv("datasets/percents/dev.csv")]
    assert split.labels == pytest.approx([score / 20 for score in written])
    assert task.from_model(np.array(split.labels)) == pytest.approx(written)


def test_own_data_computes_what_glues_does(in_tmp_path, teacher_folder, capsys):
    """The same rows under GLUE's name and an own one: the same examples, updates and metrics."""
    write_task(Path("datasets"), "rte")
    for split in ("train", "dev"):
        lines = [line.split("\t") for line in Path(f"datasets/rte/{split}.tsv").read_text().splitlines()]
        write_csv(f"{split}.csv", lines[0], lines[1:])
    flags = ["--train", "train.csv", "--dev", "dev.csv", "--text_columns", "sentence1", "sentence2"]
    add("mine", *flags, "--model_path", teacher_folder, "--max_length", "16")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["split", "rows", "mean", "tokens", "most", "tokens", "cut", "at", "16"]
    glue, own = read_split("rte", "datasets", "train"), read_split("mine", "datasets", "train")
    assert (own.first, own.second) == (glue.first, glue.second)
    tokens = [
        len(first.split()) + len(second.split()) + 3 for first, second in zip(glue.first, glue.second, strict=True)
    ]
    cut = sum(count > 16 for count in tokens)
    assert printed[1].split() == ["train", "50", f"{np.mean(tokens):.1f}", str(max(tokens)), str(cut)]

    # labels in the alphabet's order, not GLUE's
    definition = read_json(Path("datasets/mine/task.json"))
    definition["labels"].reverse()
    Path("datasets/mine/task.json").write_text(json.dumps(definition))
    results = []
    for name in ("rte", "mine"):
        flags = ["--task_name", name, *QUICK, "--model_path", str(teacher_folder), "--output_dir", name]
        run_finetuning.main(flags)
        results.append(read_json(Path(name, f"ft_{name}", "metrics.json"))["history"])
    assert [{**row, "seconds": 0} for row in results[0]] == [{**row, "seconds": 0} for row in results[1]]


def test_dev_is_drawn_from_train_by_class_with_the_seed_and_shares_no_text(in_tmp_path, capsys):
    texts = [f"{WORDS[i % 40]} {i // 2 if i < 20 else i}" for i in range(200)]
    rows = [(text, "rare" if i % 50 == 7 else "often") for i, text in enumerate(texts)]
    write_csv("all.csv", ["text", "label"], rows + rows[:10])

    def parts(*flags):
        add("mine", "--train", "all.csv", "--text_columns", "text", "--overwrite", *flags)
        return [[tuple(row.values()) for row in read_csv(f"datasets/mine/{name}.csv")] for name in ("train", "dev")]

    train, dev = parts()
    assert sorted(train + dev) == sorted(rows + rows[:10])
    assert [label for _, label in dev].count("rare") == 1
    assert len(dev) == 21
    assert not {text for text, _ in train} & {text for text, _ in dev}
    assert "are in train, too" not in capsys.readouterr().out
    assert parts() == [train, dev]
    assert parts("--seed", "1")[1] != dev
    assert len(parts("--dev_percent", "50")[1]) > 80


def test_scores_of_dev_are_spread_like_trains(in_tmp_path):
    with open("all.tsv", "w") as file:
        file.write("text\tlabel\n" + "".join(f"w1 {i}\t{i}\n" for i in random.Random(1).sample(range(200), 200)))
    add("mine", "--train", "all.tsv", "--text_columns", "text", "--regression", "--metric", "corr")
    dev = sorted(int(row["label"]) for row in read_csv("datasets/mine/dev.csv"))
    assert [score // 10 for score in dev] == list(range(20))


def test_the_report_of_a_task_names_what_it_found(in_tmp_path, capsys):
    labels = ["10", "9", "1", "01", "-2.5", "1e1"]
    reviews("train.csv", 60, labels)
    reviews("dev.csv", 24, labels)
    row = read_csv("train.csv")[3]
    write_csv("dev.csv", ["text", "class"], [(r["text"], r["class"]) for r in [*read_csv("dev.csv"), row]])
    add("mine", "--train", "train.csv", "--dev", "dev.csv", "--text_columns", "text", "--label_column", "class")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["split", "rows", "mean", "words", "most", "words"]
    assert [line.split()[:2] for line in lines[1:3]] == [["train", "60"], ["dev", "25"]]
    assert [line.split() for line in lines[4:10]] == [
        *([label, "10", "16.7", "%", "4", "16.0", "%"] for label in ("-2.5",)),
        *([label, "10", "16.7", "%", count, share, "%"] for label, count, share in (("01", "5", "20.0"),)),
        *([label, "10", "16.7", "%", "4", "16.0", "%"] for label in ("1", "9", "10", "1e1")),
    ]
    assert lines[10].startswith("1 rows of dev are in train, too, the first 'w3, ")
    assert find_task("mine", "datasets").labels == ("-2.5", "01", "1", "9", "10", "1e1")
    assert Path("datasets/mine/train.csv").read_bytes() == Path("train.csv").read_bytes()
    # of classes that dev lacks no metric can tell
    reviews("dev.csv", 24, labels[2:])
    add("less", "--train", "train.csv", "--dev", "dev.csv", "--text_columns", "text", "--label_column", "class")
    assert "classes without a row of dev: '9', '10'\n" in capsys.readouterr().out


def test_labels_that_may_be_the_same_or_none_and_premises_in_both_parts_are_named(in_tmp_path, capsys):
    labels = ["0", "1", "1.0", "nan"]
    rows = [f"premise {index // 3},hypothesis {index},{labels[index % 4]}" for index in range(60)]
    Path("all.csv").write_text("\n".join(["one,two,label", *rows]))
    add("nli", "--train", "all.csv", "--text_columns", "one", "two")
    printed = capsys.readouterr().out
    assert "labels that may be the same: '1', '1.0'\n" in printed
    assert "classes that may stand for a missing label: 'nan'\n" in printed
    assert "rows of dev share one of their two texts with a row of train" in printed


def test_many_classes_and_other_scripts(in_tmp_path, capsys):
    labels = [*(f"класс {n}" for n in range(49)), "日本", "Яблоко", "яблоко"]
    with open("all.jsonl", "w", encoding="utf-8") as file:
        for index in range(520):
            row = {"текст": f"日本語 {index}", "import": labels[index % 52]}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    add("many", "--train", "all.jsonl", "--text_columns", "текст", "--label_column", "import")
    printed = capsys.readouterr().out
    assert "and 2 classes more" in printed
    assert "labels that may be the same: 'Яблоко', 'яблоко'" in printed
    assert sorted(set(read_split("many", "datasets", "dev").labels)) == list(range(52))
    assert find_task("many", "datasets").labels == tuple(sorted(labels))
    assert "日本" in Path("datasets/many/task.json").read_text(encoding="utf-8")


GOOD = 'text,label\nw1,a\nw2,a\nw3,b\n"w4, w5",b\n'
BAD_FILES = {
    "torn quote": (GOOD + '"w6,a\n', r"train.csv line 6: a torn quote"),
    "empty text": (GOOD + " ,a\n", r"train.csv line 6: text is empty, expected a text"),
    "empty label": (GOOD + "w6,\n", r"train.csv line 6: label is empty, expected a label"),
    "a class of one row": (GOOD + "w6,c\n", r"train.csv line 6: label 'c' has this row alone"),
    "one class": ("text,label\nw1,a\nw2,a\n", r"train.csv: labels 'a', expected rows of at least two labels"),
    "no rows": ("text,label\n", r"train.csv: labels none, expected rows"),
    "no file": (None, r"train.csv: no such file"),
    "labels but for white space": (
        GOOD + "w6, a\n",
        r"train.csv line 6: label ' a' is 'a' in line 2 but for white space",
    ),
    "a label of lines": (GOOD + 'w6,"a\nb"\n', r"train.csv line 6: label is a label of several lines, expected"),
    "no label column": (GOOD.replace("label", "stars"), r"train.csv line 1: columns 'text', 'stars', expected 'label'"),
    "no text column": (GOOD.replace("text", "body"), r"train.csv line 1: columns 'body', 'label', expected 'text'"),
    "semicolons": (GOOD.replace(",", ";"), r"train.csv line 1: columns separated by ;, expected ,"),
    "numbers that never recur": ("text,label\nw1,1.5\nw2,2.5\n", r"rows of each label; --regression predicts numbers"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_is_wrong_is_one_line_and_nothing_is_written(in_tmp_path, capsys, case):
    content, message = BAD_FILES[case]
    if content is not None:
        Path("train.csv").write_text(content)
    assert message in refused(add_task, capsys, "mine", "--train", "train.csv", "--text_columns", "text")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dev", "dev.csv"], "dev.csv line 3: label 'c', expected one of 'a', 'b'"),
        (["--dev", "dev.csv", "--test", "empty.csv"], "empty.csv line 2: text is empty"),
        (["--metric", "corr"], "--metric corr: expected one of acc, acc_and_f1, f1, macro_f1, matthews_corrcoef"),
        (["--regression"], "train.csv line 2: label is 'a', expected a number"),
        (["--regression", "--metric", "acc"], "train.csv line 2"),
        (["--score_range", "0", "1"], "--score_range: for --regression"),
        (["--train", "three.csv", "--metric", "f1"], "--metric f1: for two classes, found 3; macro_f1 is for any"),
        (["--train", "three.csv", "--metric", "acc_and_f1"], "--metric acc_and_f1: for two classes, found 3"),
        (["--train", "scores.csv", "--regression", "--score_range", "5", "1"], "score_range [5.0, 1.0], expected [low"),
        (
            ["--train", "scores.csv", "--regression", "--score_range", "0", "2"],
            "scores.csv line 3: score '2.5', expect",
        ),
        (["--train", "scores.csv", "--regression", "--metric", "acc"], "--metric acc: expected one of corr for scores"),
        (["--train", "same.csv", "--regression"], "same.csv: scores [1.0], expected rows of different scores"),
        (["--text_columns", "text", "text"], "text_columns ['text', 'text'], label_column label; expected one or two"),
        (["--text_columns", "label"], "expected one or two names and another one"),
        (["--text_columns", "a", "b", "c"], "expected one or two names and another one"),
        (["--model_path", "nowhere"], "nowhere"),
        (["--train", "twice.csv"], "twice.csv: every text occurs more than once"),
    ],
)
def test_flags_that_do_not_fit_the_files_are_one_line(in_tmp_path, capsys, flags, message):
    Path("train.csv").write_text(GOOD)
    Path("dev.csv").write_text("text,label\nw1,a\nw2,c\n" if "empty.csv" not in flags else GOOD)
    Path("empty.csv").write_text('text\n""\n')
    Path("three.csv").write_text(GOOD + "w6,c\nw7,c\n")
    Path("scores.csv").write_text("text,label\nw1,1\nw2,2.5\nw3,2\n")
    Path("same.csv").write_text("text,label\nw1,1\nw2,1.0\n")
    Path("twice.csv").write_text(GOOD.replace("w2", "w1").replace("w3", '"w4, w5"'))
    assert message in refused(add_task, capsys, "mine", "--train", "train.csv", "--text_columns", "text", *flags)


@pytest.mark.parametrize("name", ["rte", "RTE", "STS-B", "ax", "a b", "a/b", "..", "-a", "_a", "a.b", "", "é"])
def test_names_that_are_no_folders_or_glues_are_refused(in_tmp_path, capsys, name):
    Path("train.csv").write_text(GOOD)
    flags = ["--train", "train.csv", "--text_columns", "text"]
    with pytest.raises(SystemExit) as stop:
        add_task.main([*flags, "--", name])
    assert stop.value.code == 2
    assert f"name: found {name!r}, expected letters, digits, _ and -, and none of GLUE's" in capsys.readouterr().err
    assert not Path("datasets").exists()


def test_a_task_that_is_there_is_replaced_with_overwrite_alone_and_nothing_else_is(in_tmp_path, capsys):
    Path("train.csv").write_text(GOOD)
    flags = ["mine", "--train", "train.csv", "--text_columns", "text"]
    add(*flags)
    assert "datasets/mine: exists; --overwrite replaces it" in refused(add_task, capsys, *flags)
    Path("train.csv").write_text(GOOD.replace(",b", ",c"))
    add(*flags, "--overwrite")
    assert find_task("mine", "datasets").labels == ("a", "c")
    assert sorted(path.name for path in Path("datasets").iterdir()) == ["mine"]

    # files that it did not write, or reads, would be lost
    inside = ["mine", "--train", "datasets/mine/train.csv", "--text_columns", "text", "--overwrite"]
    assert "in the folder that is written; expected a file elsewhere" in refused(add_task, capsys, *inside)
    Path("datasets/mine/notes.txt").write_text("mine")
    assert "holds 'notes.txt', which --overwrite would remove" in refused(add_task, capsys, *flags, "--overwrite")
    Path("datasets/file").write_text("mine")
    assert "datasets/file: a file, expected" in refused(add_task, capsys, "file", *flags[1:], "--overwrite")


def test_two_processes_do_not_add_the_same_task(in_tmp_path, capsys):
    Path("train.csv").write_text(GOOD)
    Path("datasets").mkdir()
    with open("datasets/.mine.lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        line = refused(add_task, capsys, "mine", "--train", "train.csv", "--text_columns", "text")
    assert "datasets: another process is writing here; wait for it" in line


def definition(**changes):
    content = {"text_columns": ["text"], "label_column": "label", "labels": ["a", "b"], "metric": "acc", **changes}
    return {key: value for key, value in content.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "found nothing, expected text_columns, label_column, metric, and labels or score_range"),
        (definition(metric=None), "found text_columns, label_column, labels, expected text_columns"),
        (definition(colour="red"), "found text_columns, label_column, labels, metric, colour, expected"),
        (definition(score_range=[0, 1]), "found text_columns, label_column, labels, metric, score_range, expected"),
        (definition(text_columns="text"), "text_columns text, label_column label; expected one or two names"),
        (definition(text_columns=["a", "b", "c"]), "expected one or two names and another one"),
        (definition(label_column=1), "label_column 1; expected one or two names"),
        (definition(labels=["a"]), "labels ['a'], expected at least two names in quotes, each once"),
        (definition(labels=[1, 2]), "labels [1, 2], expected at least two names in quotes"),
        (definition(labels=["a", "a"]), "labels ['a', 'a'], expected at least two names"),
        (definition(labels=["a", "a "]), "labels ['a', 'a '], expected at least two names"),
        (definition(labels=["a", "b", "c"], metric="f1"), "metric f1, for two classes, found 3"),
        (definition(metric="auc"), "metric auc, expected one of acc, "),
        (definition(metric=1), "metric 1, expected one of acc, "),
        (definition(labels=None, score_range=[1, 1], metric="corr"), "score_range [1, 1], expected [lowest, highest]"),
        (definition(labels=None, score_range=[0, "5"], metric="corr"), "score_range [0, '5'], expected"),
        (definition(labels=None, score_range=[-1e308, 1e308], metric="corr"), "score_range [-1e+308, "),
        (definition(labels=None, score_range=[0, 10**400], metric="corr"), "score_range [0, 1000000"),
        (definition(labels=None, score_range=[0, 5], metric="acc"), "metric acc, expected one of corr for scores"),
    ],
)
def test_a_task_file_that_is_wrong_is_one_line(in_tmp_path, capsys, content, message):
    Path("datasets/mine").mkdir(parents=True)
    Path("datasets/mine/task.json").write_text(json.dumps(content))
    line = refused(run_finetuning, capsys, "--task_name", "mine")
    assert line.startswith("error: datasets/mine/task.json: ")
    assert message in line


def test_a_task_that_there_is_not_is_named_with_those_there_are(in_tmp_path, capsys):
    Path("train.csv").write_text(GOOD)
    add("mine", "--train", "train.csv", "--text_columns", "text")
    for script in (run_finetuning, sweep, benchmark):
        line = refused(script, capsys, "--task_name", "yours")
        assert "--task_name yours: unknown, expected one of GLUE's rte, mrpc, " in line
        assert "which scripts/add_task.py adds to --data_dir datasets (found mine)" in line


def test_rows_that_are_wrong_are_named_by_a_stage_too(in_tmp_path, bert_folder, capsys):
    Path("train.csv").write_text(GOOD)
    add("mine", "--train", "train.csv", "--text_columns", "text")
    flags = ["--task_name", "mine", "--model_path", str(bert_folder)]
    path = Path("datasets/mine/dev.csv")
    path.write_text("text,label\nw1,a\nw2,3\n")
    line = refused(run_finetuning, capsys, *flags)
    assert line == f"error: {path} line 3: label '3', expected one of 'a', 'b'"
    path.write_text('text,label\nw1,a\n"  ",a\n')
    assert f"{path} line 3: text is empty, expected a text" in refused(run_finetuning, capsys, *flags)
    path.write_text("text,label\n")
    assert f"{path}: no rows, expected examples of mine" in refused(run_finetuning, capsys, *flags)
    path.with_suffix(".tsv").write_text("text\tlabel\nw1\ta\n")
    line = refused(run_finetuning, capsys, *flags)
    assert "datasets/mine: found 'dev.csv', 'dev.tsv', expected one dev file" in line
    path.unlink()
    path.with_suffix(".tsv").unlink()
    line = refused(run_finetuning, capsys, *flags)
    assert "datasets/mine/dev.csv or dev.tsv or dev.jsonl: no such file, found task.json, train.csv" in line


def test_an_own_task_has_the_default_sizes_and_its_own_metrics(in_tmp_path, capsys):
    Path("train.csv").write_text(GOOD)
    add("mine", "--train", "train.csv", "--text_columns", "text", "--metric", "f1")
    assert "F1 is that of class 'b'" in capsys.readouterr().out
    args = run_finetuning.parse_args(["--task_name", "mine"])
    assert (args.per_device_train_batch_size, args.learning_rate, args.num_train_epochs) == tuple(Sizes())
    assert args.selection_metric == "f1"
    with pytest.raises(SystemExit):
        run_finetuning.parse_args(["--task_name", "mine", "--selection_metric", "macro_f1"])
    assert "found 'macro_f1', expected one of f1, acc for mine" in capsys.readouterr().err


def test_tokens_are_not_cached_across_definitions_and_kinds_of_files(in_tmp_path, tokenizer):
    texts = '"w1","a"\n"w2","b"\n'
    folder = Path("datasets/mine")
    folder.mkdir(parents=True)

    def labels_of(suffix, content, **changes):
        for path in folder.iterdir():
            path.unlink()
        (folder / f"dev.{suffix}").write_text(content)
        (folder / "task.json").write_text(json.dumps(definition(**changes)))
        examples = load_examples("mine", "datasets", "dev", tokenizer, 16)
        return examples.labels.tolist(), examples.tokens.tolist()

    content = '"text","label"\n' + texts
    (first, tokens), (second, same) = labels_of("csv", content), labels_of("csv", content, labels=["b", "a"])
    assert (first, second, tokens) == ([0, 1], [1, 0], same)
    content = "text\tlabel\n" + '"w1"\ta\n'
    quoted = labels_of("tsv", content)
    assert quoted[0] == [0]
    with pytest.raises(InputError, match=r"dev.csv line 1: columns separated by tab, expected ,"):
        labels_of("csv", content)


def test_two_tasks_of_one_name_are_not_reported_together(in_tmp_path, capsys):
    for seed, metric in ((1, "acc"), (2, "f1")):
        folder = Path(f"outputs/seed_{seed}/finetune/ft_mine/ckpt")
        folder.mkdir(parents=True)
        args = {"task_name": "mine", "seed": seed, "stage": "finetuning", "model_type": "ft"}
        (folder / "args.json").write_text(json.dumps({**args, "task": definition(metric=metric)}))
        (folder / "metrics.json").write_text(json.dumps({"dev": {"acc": 0.5, "f1": 0.5}}))
    line = refused(report, capsys, "--no_speed")
    assert "two tasks of the name mine, whose task.json differ; name the folders to report on" in line


def test_a_run_without_a_definition_of_its_task_is_refused():
    with pytest.raises(InputError, match=r"task_name mine of args\.json: none of GLUE's, and args\.json has no task"):
        task_of({"task_name": "mine"})


def test_a_sweep_takes_an_own_task_and_knows_its_predictions(in_tmp_path, teacher_folder):
    write_csv("all.csv", ["text", "label"], [(f"{WORDS[i % 2]} {i}", "ab"[i % 2]) for i in range(20)])
    add("mine", "--train", "all.csv", "--test", "all.csv", "--text_columns", "text")
    flags = ["--task_name", "mine", "--model_path", str(teacher_folder), "--student_layer", "2"]
    args = sweep.parse_args([*flags, f"--train_flags={' '.join([*QUICK, '--do_test'])}"])
    first, *_ = sweep.grid(args)
    run_finetuning.main(first.flags)
    sweep.update(first)
    assert (first.state, first.settings["task"]["labels"]) == (sweep.DONE, ["a", "b"])
    (first.folder / "mine.csv").unlink()
    first.state = sweep.WAITING
    sweep.update(first)
    assert first.state == sweep.WAITING


def test_the_benchmark_draws_rows_of_an_own_task(in_tmp_path):
    reviews("all.csv", 40)
    add("mine", "--train", "all.csv", "--text_columns", "text", "--label_column", "class")
    PrunableBert(small_config()).save_pretrained(Path("model"))
    path = split_path("mine", "datasets", "train")
    header, lines = benchmark.train_lines(path, find_task("mine", "datasets"))
    assert header == []
    assert [json.loads(line) for line in lines] == [dict(row) for row in read_csv(path)]


@pytest.mark.parametrize(("suffix", "is_warned"), [("tsv", True), ("csv", False)])
def test_quotes_of_a_csv_writer_in_a_file_that_has_no_quoting_are_warned_of(in_tmp_path, caplog, suffix, is_warned):
    folder = Path("datasets/films")
    folder.mkdir(parents=True)
    (folder / "task.json").write_text(json.dumps(definition()))
    separator = "," if suffix == "csv" else "\t"
    lines = [separator.join(row) for row in (("text", "label"), ('"so ""good"""', "a"), ("bad", "b"))]
    (folder / f"train.{suffix}").write_text("\n".join(lines) + "\n")
    first = read_split("films", "datasets", "train").first
    assert first == ['so "good"' if suffix == "csv" else '"so ""good"""', "bad"]
    assert ("1 fields with a CSV writer's quotes, the first in line 2" in caplog.text) == is_warned


@pytest.mark.parametrize(("third", "is_warned"), [('"c, d"', True), ("c, d", False)])
def test_a_spreadsheets_quotes_around_texts_with_commas_are_warned_of(in_tmp_path, caplog, third, is_warned):
    folder = Path("datasets/films")
    folder.mkdir(parents=True)
    (folder / "task.json").write_text(json.dumps(definition()))
    (folder / "train.tsv").write_text(f'text\tlabel\n"a, b"\ta\ngood\tb\n{third}\tb\n"a, ""b"""\ta\n')
    read_split("films", "datasets", "train")
    assert ("3 fields with a CSV writer's quotes, the first in line 2" in caplog.text) == is_warned
