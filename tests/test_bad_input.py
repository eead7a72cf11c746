"""Errors that a user can cause: one line that names what and where, status 2, and unchanged outputs.

The ranges and choices of single flags are in test_arguments.py.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import small_config, write_task
from safetensors.torch import load_file, save_file

import run_distillation
import run_finetuning
import run_pruning
import run_rewinding
import run_sparsification
from models.bert import PrunableBert

TEACHER = ["--teacher_model_path", "teacher", "--student_model_path", "teacher"]
STAGES = {
    "finetuning": (run_finetuning, ["--model_path", "teacher"]),
    "pruning": (run_pruning, ["--model_path", "teacher"]),
    "distillation": (run_distillation, [*TEACHER, "--student_layer", "2"]),
    "sparsification": (run_sparsification, [*TEACHER, "--student_layer", "2"]),
    "rewinding": (run_rewinding, [*TEACHER, "--student_layer", "2"]),
}


def line(number: int, text: str, split: str = "train", task: str = "rte"):
    """Replace a line of a split's file; the header is line 1."""

    def change():
        path = Path("datasets", task, f"{split}.tsv")
        lines = path.read_text().split("\n")
        lines[number - 1] = text
        path.write_text("\n".join(lines))

    return change


def content(text: str | bytes, name: str = "datasets/rte/train.tsv"):
    """Replace the content of a file."""
    return lambda: Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())


def appended(name: str, text: str):
    """Append a text to a file."""
    return lambda: Path(name).write_text(Path(name).read_text() + text)


def truncated(name: str):
    """Remove the last bytes of a file."""
    return lambda: Path(name).write_bytes(Path(name).read_bytes()[:-100])


def pickled(name: str):
    """Write a pickle that holds an object instead of a tensor."""
    return lambda: torch.save({"bert.embeddings.word_embeddings.weight": Path()}, name)


def both(first, second):
    """Make one change after the other."""
    return lambda: (first(), second())


def removed(name: str):
    """Remove a file or folder."""
    return lambda: shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()


def config(**changes):
    """Change the teacher's configuration."""

    def change():
        path = Path("teacher/config.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def weights(change):
    """Change the teacher's weights, a dict of tensors, in place."""

    def apply():
        path = "teacher/model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return apply


def nothing():
    """Change nothing, where only the flags are wrong."""


HALF_OF_ONE = ["--selection_split", "half", "--max_eval_examples", "1"]
HEADS_GONE = {"0": {"head": {}, "neuron": {}}, "50": {"head": {"0": 5}, "neuron": {}}}
ROW = "1\tw1 w2\tw1\tentailment"
DATA = [
    (line(3, "1\tw1 w2\tentailment"), [], r"train\.tsv line 3: 3 columns, expected 4"),
    (line(3, f"{ROW}\tmore"), [], r"train\.tsv line 3: 5 columns, expected 4"),
    (line(3, "1 w1 w2 w1 entailment"), [], r"train\.tsv line 3: 1 columns, expected 4"),
    (line(4, "1\tw1\tw2\tmaybe"), [], r"train\.tsv line 4: label 'maybe', expected one of not_entailment, entailment"),
    (line(4, "1\tw1\tw2\t"), [], r"train\.tsv line 4: label ''"),
    (line(4, "1\tw1\tw2\t1"), [], r"train\.tsv line 4: label '1'"),
    (line(5, "1\tw1\tw2\tmaybe", "dev"), [], r"dev\.tsv line 5: label 'maybe'"),
    (line(1, "index\tsentence1\tsentence2", "dev"), [], r"dev\.tsv line 1: columns 'index', 'sentence1', 'sen"),
    (line(2, "1\tw1", "test"), ["--do_test"], r"test\.tsv line 2: 2 columns, expected 3"),
    (line(1, ROW), [], r"train\.tsv line 1: columns '1', 'w1 w2', 'w1', 'entailment', expected 'index', 'sentence1', "),
    (content("version https://git-lfs.github.com/spec/v1\n"), [], r"train\.tsv: a git-lfs pointer, "),
    (content(""), [], r"train\.tsv: no rows, expected examples of RTE"),
    (content("index\tsentence1\tsentence2\tlabel\n"), [], r"train\.tsv: no rows"),
    (content("\n\n\n"), [], r"train\.tsv: no rows"),
    (content("", "datasets/rte/dev.tsv"), [], r"dev\.tsv: no rows"),
    (content("a\tb\tc\td\n1\tcafé\tw1\tentailment\n".encode("latin-1")), [], r"train\.tsv: not UTF-8 text"),
    (content("a\tb\tc\td\n1\tw1\tw1\tentailment\n".encode("utf-16")), [], r"train\.tsv: not UTF-8 text"),
    (content(bytes(range(256)) * 20), [], r"train\.tsv: not UTF-8 text"),
    (content(b"\x00" * 4000), [], r"train\.tsv: no rows|train\.tsv line 1"),
    (removed("datasets/rte/train.tsv"), [], r"train\.tsv: no such file, found dev\.tsv, test\.tsv"),
    (removed("datasets/rte/dev.tsv"), [], r"dev\.tsv: no such file"),
    (removed("datasets/rte/test.tsv"), ["--do_test"], r"test\.tsv: no such file"),
    (removed("datasets/rte"), [], r"datasets/rte: no such folder, expected the task's TSV files"),
]
SCORES = [
    (
        line(3, "1" + "\tx" * 6 + "\tw1\tw2\thigh", task="stsb"),
        [],
        r"line 3: score 'high', expected a number from 0 to",
    ),
    (line(3, "1" + "\tx" * 6 + "\tw1\tw2\t5.01", task="stsb"), [], r"line 3: score '5\.01'"),
    (line(3, "1" + "\tx" * 6 + "\tw1\tw2\t-1", task="stsb"), [], r"line 3: score '-1'"),
    (line(3, "1" + "\tx" * 6 + "\tw1\tw2\tnan", task="stsb"), [], r"line 3: score 'nan'"),
    (line(3, "1" + "\tx" * 6 + "\tw1\tw2\t", task="stsb"), [], r"line 3: score ''"),
]
CHECKPOINTS = [
    (removed("teacher"), [], r"teacher: no"),
    (removed("teacher/config.json"), [], r"teacher: no config\.json"),
    (removed("teacher/model.safetensors"), [], r"teacher: no weights there, expected model.safetensors"),
    (removed("teacher/vocab.txt"), [], r"teacher: neither vocab\.txt nor tokenizer\.json"),
    (content("{", "teacher/config.json"), [], r"teacher: cannot be read"),
    (content("[]", "teacher/config.json"), [], r"teacher: cannot be read"),
    (content(b"junk" * 100, "teacher/model.safetensors"), [], r"teacher: cannot be read"),
    (content(b"", "teacher/model.safetensors"), [], r"teacher: cannot be read"),
    (truncated("teacher/model.safetensors"), [], r"teacher: cannot be read"),
    (both(removed("teacher/model.safetensors"), pickled("teacher/pytorch_model.bin")), [], r"teacher: cannot be read"),
    (
        both(removed("teacher/model.safetensors"), content(b"junk", "teacher/pytorch_model.bin")),
        [],
        r"teacher: cannot be read",
    ),
    (config(model_type="gpt2"), [], r"teacher: a checkpoint of type gpt2, expected one of bert, roberta, "),
    (config(hidden_size=64), [], r"teacher: \d+ encoder weights are missing or of another shape"),
    (config(hidden_size="wide"), [], r"teacher: hidden_size .wide. of config.json: expected an integer"),
    (config(num_attention_heads=5), [], r"teacher: "),
    (config(num_hidden_layers=4), [], r"teacher: 16 encoder weights are missing"),
    (config(id2label={"0": "good", "1": "bad"}), [], r"teacher: a classifier for good, bad; this task has not_entail"),
    (config(sparsity="50", sparsity_map=HEADS_GONE), [], r"teacher: .*removes 5 of 4 heads in layer 0"),
    (
        config(sparsity="50", sparsity_map={"0": {"head": {}, "neuron": {}}}),
        [],
        r"sparsity 50 is not in",
    ),
    (
        config(sparsity="50", sparsity_map={"50": {"head": {"0": 2}, "neuron": {}}}),
        [],
        r"teacher: \d+ encoder weights are missing or of another shape",
    ),
    (config(sparsity_map=[1, 2]), ["--student_sparsity", "50"], r"teacher: .*sparsity"),
    (config(sparsity_map={"50": 3}, sparsity="50"), [], r"teacher: .*sparsity"),
    (weights(lambda tensors: tensors.pop("cls.3.weight")), [], r"teacher: no classifier for 2 classes"),
    (
        weights(lambda tensors: tensors.update({"cls.3.weight": torch.zeros(3, 32)})),
        [],
        r"teacher: no classifier for 2",
    ),
    (
        weights(lambda tensors: tensors.pop("bert.encoder.layer.0.output.dense.weight")),
        [],
        r"teacher: 1 encoder weights are missing",
    ),
    (
        appended("teacher/vocab.txt", "w98\nw99\n"),
        [],
        r"the tokenizer's ids go up to 46, the model's embedding has 45 rows",
    ),
    (
        both(lambda: shutil.copytree("teacher", "other"), appended("other/vocab.txt", "w98\n")),
        ["--student_model_path", "other"],
        r"other: another vocabulary \(46 tokens\) than that of teacher \(45\)",
    ),
]
FLAGS = [
    (["--student_layer", "4"], r"--student_layer 4: the model has only 3 layers"),
    (["--student_sparsity", "70"], r"sparsity 70 is not in the checkpoint's sparsity map, which holds 0"),
    (["--layer_choice", "middle"], r"--layer_choice: found 'middle', expected first, last, spaced, or layers as in"),
    (["--layer_choice", "1,0"], r"--layer_choice: found '1,0'"),
    (["--layer_choice", "0,1,2"], r"--layer_choice: found 3 layers, expected --student_layer 2"),
    (["--layer_choice", "0,3"], r"--layer_choice 0,3: the model's layers go from 0 to 2"),
    (["--layer_choice", "last", "--student_sparsity", "50"], r"--layer_choice: for layer-dropped students"),
    (["--student_sparsity", "0.7"], r"--student_sparsity: found '0\.7', expected an integer"),
    (["--learning_rate", "fast"], r"--learning_rate: found 'fast', expected a number"),
    (["--learning_rate", "nan"], r"--learning_rate"),
    (["--max_length", "41"], r"--max_length 41: the model takes at most 40 tokens"),
    (
        ["--pkd_weight", "10", "--student_layer", "1"],
        r"--pkd_weight: compares all layers but the last, the student has",
    ),
    (["--pkd_weight", "10", "--model_type", "ft"], r"--pkd_weight: for --model_type kd, found ft"),
    (["--tinybert_weight", "1", "--compile"], r"--tinybert_weight: not with --compile"),
    (["--alpha", "1.1"], r"--alpha: found '1\.1', expected a number from 0"),
    (["--selection_metric", "f1"], r"--selection_metric: found 'f1', expected one of acc for rte"),
    (["--task_name", "imdb"], r"--task_name imdb: unknown, expected one of GLUE's rte, mrpc, .* \(found none\)"),
    (
        ["--lr_scheduler_type", "polynomial", "--learning_rate", "0"],
        r"--learning_rate: found 0\.0, expected more than the 1e-07 at which --lr_scheduler_type polynomial ends",
    ),
    (["--lr_scheduler_type", "polynomial", "--learning_rate", "1e-7"], r"--learning_rate: found 1e-07"),
    (
        ["--lr_scheduler_type", "polynomial", "--warmup_proportion", "1"],
        r"--warmup_proportion: found 1, expected less with --lr_scheduler_type polynomial",
    ),
    (["--use_fp16", "--use_bf16"], r"not allowed with argument"),
    (HALF_OF_ONE, r"--selection_split half: found 1 row of dev, expected at least 2"),
    (["--students", "4"], r"unrecognized arguments"),
    (["--data_dir", "nowhere"], r"nowhere/rte: no such folder"),
]
OTHER_STAGES = [
    *(
        (stage, nothing, HALF_OF_ONE, r"--selection_split half: found 1 row of dev, expected at least 2")
        for stage in ("finetuning", "pruning", "sparsification")
    ),
    ("pruning", config(sparsity="50", sparsity_map=HEADS_GONE), [], r"removes 5 of 4 heads"),
    (
        "pruning",
        config(sparsity="50", sparsity_map={"50": {"head": {}, "neuron": {}}}),
        [],
        r"teacher: cut at 50 %, expected an uncut model",
    ),
    ("sparsification", nothing, ["--lam", "nan"], r"--lam: found 'nan', expected a number from 0 to 1"),
    ("sparsification", nothing, ["--learning_rate", "1e-5"], r"unrecognized arguments"),
    ("rewinding", nothing, [], r"teacher: no sparsity_map in config\.json"),
    (
        "rewinding",
        config(sparsity_map={"0": {"head": {}, "neuron": {}}}),
        ["--teacher_sparsity", "0", "30"],
        r"--teacher_sparsity 30: the teacher's checkpoint knows 0",
    ),
    ("rewinding", nothing, ["--teacher_sparsity", "x"], r"--teacher_sparsity"),
    (
        "rewinding",
        config(sparsity_map={"0": {"head": {}, "neuron": {}}}),
        ["--teacher_schedule", "30", "0"],
        r"--teacher_schedule 30: the teacher's checkpoint knows 0",
    ),
    (
        "rewinding",
        config(sparsity_map={"0": {"head": {}, "neuron": {}}}),
        ["--teacher_sparsity", "0", "--halving", "0", "55"],
        r"--halving 55: the teacher's checkpoint knows 0",
    ),
    (
        "rewinding",
        config(sparsity_map={"0": {"head": {}, "neuron": {}}}),
        ["--match_spread", "30"],
        r"--match_spread 30: the teacher's checkpoint knows 0",
    ),
    (
        "rewinding",
        config(sparsity_map={"0": {"head": {}, "neuron": {}}}),
        ["--teacher_schedule", *"00000", "--num_train_epochs", "1"],
        r"--teacher_schedule: found 5 teachers, expected at most the 4 updates",
    ),
    ("finetuning", nothing, ["--model_path", "no/such/bert"], r"no/such/bert: "),
    ("finetuning", nothing, ["--student_layer", "2"], r"unrecognized arguments: --student_layer 2"),
    ("finetuning", nothing, ["--model_type", "kd"], r"--model_type: invalid choice: 'kd'"),
]
CASES = (
    [("distillation", *case) for case in [*DATA, *CHECKPOINTS]]
    + [("distillation", nothing, *case) for case in FLAGS]
    + [("finetuning", change, ["--task_name", "stsb", *flags], message) for change, flags, message in SCORES]
    + OTHER_STAGES
)


@pytest.fixture
def inputs_and_outputs(tmp_path, monkeypatch, teacher_folder):
    """The current folder, with two tasks, a teacher, and earlier outputs."""
    monkeypatch.chdir(tmp_path)
    for task in ("rte", "stsb"):
        write_task(Path("datasets"), task)
    for kind in ("finetune/ft_rte", "finetune/ft_stsb", "prune/ft_rte", "distil/layer_dropped/kd_2_rte"):
        PrunableBert(small_config(num_hidden_layers=1)).save_pretrained(Path("outputs", kind, "ckpt"))
        Path("outputs", kind, "ckpt", "metrics.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(("stage", "change", "flags", "message"), CASES)
def test_bad_input_is_one_line_and_changes_no_output(inputs_and_outputs, capsys, stage, change, flags, message):
    change()
    before = {path: path.read_bytes() for path in Path("outputs").rglob("*") if path.is_file()}
    script, defaults = STAGES[stage]
    with pytest.raises(SystemExit) as stop:
        script.main([*defaults, *flags])
    [error] = capsys.readouterr().err.strip().split("\n")
    assert re.search(message, error)
    assert stop.value.code == 2
    assert {path: path.read_bytes() for path in Path("outputs").rglob("*") if path.is_file()} == before
