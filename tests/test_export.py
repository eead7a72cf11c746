"""Exports have the logits of the checkpoint, cut or not; refused exports; the costs of a model."""

import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import random_batch, refused, small_config, write_vocabulary
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import run_finetuning
from models.bert import PrunableBert
from models.checkpoint import load_model
from models.pruning import cut, drop_layers, sort_units
from models.units import CheckpointError, Units
from scripts import budget, export, inspect_model
from student import load_student
from utils.errors import InputError
from utils.files import checkpoint_digest

MANY = {"id2label": {index: f"class {index}" for index in range(12)}}
RTE = {"id2label": {0: "not_entailment", 1: "entailment"}}
pytestmark = [pytest.mark.usefixtures("in_tmp_path"), pytest.mark.compiles]
SCORE = {"id2label": {0: "score"}}
# layer 0 keeps neither, layer 1 keeps one head and no neuron, layer 2 keeps both in part
CUT = {
    "sparsity": "50",
    "sparsity_map": {"50": {"head": {"0": 4, "1": 3, "2": 1}, "neuron": {"0": 32, "1": 32, "2": 10}}},
}


def write_model(folder: Path, layers: list[int] | None = None, **changes) -> PrunableBert:
    """A random checkpoint with some of its layers."""
    torch.manual_seed(0)
    model = PrunableBert(small_config(**changes)).eval()
    model = drop_layers(model, layers) if layers else model
    model.save_pretrained(folder)
    write_vocabulary(folder)
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """The folder of a cut student's run with its ONNX export beside the checkpoint."""
    folder = tmp_path_factory.mktemp("exported") / "student"
    write_model(folder / "ckpt", **{**MANY, **CUT})
    (folder / "ckpt" / "args.json").write_text(json.dumps({"task_name": "rte", "max_length": 7}))
    export.main(["--model_path", str(folder / "ckpt"), "--format", "onnx"])
    return folder


def test_onnx_has_the_logits_of_the_checkpoint_at_any_shape(exported):
    session = export.open_session(exported / "onnx" / "model.onnx")
    assert [part.name for part in session.get_inputs()] == ["input_ids", "token_type_ids", "attention_mask"]
    assert [part.name for part in session.get_outputs()] == ["logits"]
    model = load_model(str(exported / "ckpt")).eval()
    for rows, width in ((1, 2), (5, 11), (3, 40)):
        batch = random_batch(model.config, rows, width)
        with torch.inference_mode():
            expected = model(*batch)
        torch.testing.assert_close(torch.from_numpy(export.onnx_logits(session, batch)), expected, atol=1e-5, rtol=0)
    config = json.loads((exported / "onnx" / "config.json").read_text())
    assert config["id2label"] == {str(index): name for index, name in MANY["id2label"].items()}
    vocabularies = [AutoTokenizer.from_pretrained(exported / name).get_vocab() for name in ("onnx", "ckpt")]
    assert vocabularies[0] == vocabularies[1]
    assert sorted(path.name for path in exported.iterdir()) == ["ckpt", "onnx"]


def test_an_export_in_ones_hand_says_what_its_checkpoint_says(exported, monkeypatch):
    # of texts cut to the same length
    texts = ["w1 w2", ("w3 w4 w5 w6 w7 w8", "w9"), "w1"]
    answers = [load_student(exported / name, "cpu", batch_size=2)(texts) for name in ("ckpt", "onnx")]
    for expected, found in zip(*answers, strict=True):
        assert found.label == expected.label
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-4)
    # what load_student refuses
    with pytest.raises(InputError, match="onnx: exported to ONNX, which is computed on the CPU; found device meta"):
        load_student(exported / "onnx", "meta")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what Python does for a package that is not there
    with pytest.raises(CheckpointError, match="onnx: exported to ONNX, onnxruntime is missing: pip install"):
        load_student(exported / "onnx")
    shutil.copytree(exported / "onnx", "theirs")
    settings = json.loads(Path("theirs/config.json").read_text())
    Path("theirs/config.json").write_text(json.dumps({"model_type": "bert", "id2label": settings["id2label"]}))
    with pytest.raises(CheckpointError, match="theirs: a model.onnx that scripts/export.py did not write"):
        load_student("theirs")


@pytest.mark.parametrize(
    ("layers", "changes"),
    [(None, {**RTE, "sparsity": "0", "sparsity_map": {"0": {"head": {}, "neuron": {}}}}), ([0, 2], RTE), ([1], SCORE)],
    ids=["sorted", "dropped", "regression"],
)
def test_the_library_loads_a_full_width_model_as_its_own(layers, changes):
    model = write_model(Path("ckpt"), layers, **changes)
    export.main(["--model_path", "ckpt", "--format", "huggingface"])
    theirs, info = AutoModelForSequenceClassification.from_pretrained("huggingface", output_loading_info=True)
    assert not any(info.values())
    ids, types, mask = random_batch(model.config)
    with torch.inference_mode():
        logits = theirs.eval()(input_ids=ids, token_type_ids=types, attention_mask=mask.long()).logits
        torch.testing.assert_close(logits, model(ids, types, mask), atol=1e-5, rtol=0)
    assert theirs.config.id2label == changes["id2label"]
    assert theirs.config.label2id == {name: index for index, name in changes["id2label"].items()}
    config = json.loads(Path("huggingface/config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert not {"sparsity", "sparsity_map"} & set(config)
    assert config.get("problem_type") == ("regression" if changes is SCORE else None)


@pytest.mark.parametrize("trained_with", [9, 999, None])
def test_the_library_cuts_texts_of_an_export_where_its_student_does(trained_with):
    write_model(Path("ckpt"), **RTE)
    if trained_with:
        Path("ckpt/args.json").write_text(json.dumps({"max_length": trained_with, "inputs": {}}))
    export.main(["--model_path", "ckpt", "--format", "huggingface"])
    theirs = AutoTokenizer.from_pretrained("huggingface")
    [ids] = theirs([" ".join(["w1"] * 99)], truncation=True)["input_ids"]
    assert len(ids) == load_student("huggingface").max_length == min(trained_with or 40, 40)


def test_cut_widths_are_no_hugging_face_model(capsys):
    write_model(Path("ckpt"), **{**RTE, **CUT})
    line = refused(export, capsys, "--model_path", "ckpt", "--format", "huggingface")
    assert "layer 0 has 0 of 4 heads and 0 of 32 neurons left" in line


def test_logits_that_onnxruntime_does_not_give_leave_nothing_behind(exported, monkeypatch, capsys):
    model = write_model(Path("ckpt"), **{**MANY, **CUT})
    torch.nn.init.constant_(model.cls[3].bias, torch.nan)
    model.save_pretrained("ckpt")
    graph = exported / "onnx" / "model.onnx"  # of the same widths, but other weights
    monkeypatch.setattr(torch.onnx, "export", lambda _model, _inputs, path, **_: shutil.copy(graph, path))
    line = refused(export, capsys, "--model_path", "ckpt", "--format", "onnx", status=1)
    assert line == "error: onnxruntime's logits are nan off torch's, expected 0.0001 at most"


def test_the_checkpoints_of_one_run_are_exported_side_by_side():
    for name in ("ckpt_0", "ckpt_30"):
        write_model(Path("run", name), **RTE)
        export.main(["--model_path", f"run/{name}", "--format", "huggingface"])
    assert sorted(path.name for path in Path("run").iterdir()) == [
        "ckpt_0",
        "ckpt_30",
        "huggingface_0",
        "huggingface_30",
    ]


def test_an_export_is_replaced_and_other_files_are_not(capsys):
    write_model(Path("ckpt"), **RTE)
    flags = ["--model_path", "ckpt", "--format", "huggingface", "--output_dir"]
    export.main([*flags, "to"])
    export.main([*flags, "to"])
    capsys.readouterr()
    assert "ckpt: holds files that no export wrote" in refused(export, capsys, *flags, "ckpt")
    assert "--output_dir .: expected a folder by its name" in refused(export, capsys, *flags, ".")
    assert "config.json: a file, expected a folder" in refused(export, capsys, *flags, "to/config.json")
    assert "there is no folder no to make it in" in refused(export, capsys, *flags, "no/to")


@pytest.mark.parametrize("name", ["metrics.json", "args.json"])
def test_a_folder_with_what_only_training_writes_is_no_export(capsys, name):
    write_model(Path("ckpt"), **RTE)
    flags = ["--model_path", "ckpt", "--format", "huggingface", "--output_dir", "to"]
    export.main(flags)
    Path("to", name).write_text("{}")
    capsys.readouterr()
    assert "to: holds files that no export wrote" in refused(export, capsys, *flags)


def test_an_export_as_earlier_ones_were_is_replaced():
    write_model(Path("ckpt"), **RTE)
    flags = ["--model_path", "ckpt", "--format", "huggingface", "--output_dir", "to"]
    export.main(flags)
    source = json.loads(Path("to/export.json").read_text())["export_source"]
    config = json.loads(Path("to/config.json").read_text())
    assert "export_source" not in config  # it would go on to what is trained from it
    Path("to/export.json").unlink()
    Path("to/config.json").write_text(json.dumps({**config, "export_source": source}))
    export.main(flags)
    assert json.loads(Path("to/export.json").read_text())["export_source"] == source


def test_a_checkpoint_trained_from_an_export_is_not_replaced(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    export.main(["--model_path", "teacher", "--format", "huggingface"])
    edit = json.loads(Path("huggingface/config.json").read_text())
    Path("huggingface/config.json").write_text(json.dumps({**edit, "export_source": "0123"}))  # as earlier ones have
    flags = ["--num_train_epochs", "1", "--max_length", "40", "--use_cpu"]
    run_finetuning.main([*flags, "--model_path", "huggingface"])
    trained = "outputs/finetune/ft_rte/ckpt"
    capsys.readouterr()
    line = refused(export, capsys, "--model_path", "teacher", "--format", "huggingface", "--output_dir", trained)
    assert f"{trained}: holds files that no export wrote" in line


def test_an_export_is_a_teacher_with_the_same_logits():
    model = write_model(Path("ckpt"), **RTE)
    export.main(["--model_path", "ckpt", "--format", "huggingface"])
    batch = random_batch(model.config)
    labels = ("entailment", "not_entailment")
    with torch.inference_mode():
        again = load_model("huggingface", labels).eval()(*batch)
    torch.testing.assert_close(again, model(*batch).flip(-1), atol=1e-6, rtol=1e-5)


def test_checkpoints_that_cannot_be_exported_are_refused(capsys, bert_folder, monkeypatch):
    flags = ["--format", "onnx", "--model_path"]
    assert "no: no folder with a config.json" in refused(export, capsys, *flags, "no")
    assert "no classifier for 2 classes" in refused(export, capsys, *flags, str(bert_folder))
    write_model(Path("ckpt"), **RTE)
    config = json.loads(Path("ckpt/config.json").read_text())
    for wrong in ({"0": "a", "2": "b"}, {}, ["a", "b"], {"0": 0, "1": 1}, None):
        Path("ckpt/config.json").write_text(json.dumps({**config, "id2label": wrong}))
        assert "ckpt: id2label of config.json" in refused(export, capsys, *flags, "ckpt")
    Path("ckpt/config.json").write_text("[]")
    assert "ckpt: cannot be read: config.json: found []" in refused(export, capsys, *flags, "ckpt")
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # what Python does for a package that is not there
    line = refused(export, capsys, *flags, "ckpt")
    assert line == "error: --format onnx: onnxscript is missing: pip install onnx onnxscript onnxruntime"


def test_a_model_and_its_teacher_are_measured_side_by_side(exported, monkeypatch, capsys):
    shutil.copytree(exported, "student")
    write_model(Path("teacher", "ckpt"), **MANY)
    flags = ["--model_path", "student/ckpt", "--teacher_model_path", "teacher/ckpt", "--repeats", "10", "--use_cpu"]
    inspect_model.main([*flags, "--json", "costs.json"])
    output = capsys.readouterr().out
    assert f"torch {torch.__version__}" in output
    assert "teacher/ckpt: not exported to teacher/onnx, so torch only" in output
    costs = json.loads(Path("costs.json").read_text())
    assert costs["model"]["heads"] == {"left": [0, 1, 3], "of": 4}
    assert costs["model"]["neurons"] == {"left": [0, 0, 24], "of": 32}
    # D = 32, 4 heads of size 8, T = 32: 4 T D for each head's 8 columns, 2 T^2 for them, 2 T D for each neuron
    assert costs["model"]["macs"] == {"32": 4 * 32 * 32 * 32 + 2 * 32 * 32 * 32 + 2 * 32 * 32 * 24 + 32 * 32 + 32 * 12}
    lost = costs["teacher"]["parameters"]["others"] - costs["model"]["parameters"]["others"]
    assert lost == 8 * (8 * (4 * 32 + 3)) + (96 - 24) * (2 * 32 + 1)
    assert costs["teacher"]["parameters"]["embeddings"] == costs["model"]["parameters"]["embeddings"]
    timed = [(row["runtime"], row["batch"], row["length"]) for row in costs["model"]["latency"]]
    assert timed == [(runtime, batch, 32) for runtime in ("torch", "onnxruntime") for batch in (1, 8, 32)]
    assert all(row["ms"] > 0 and row["examples_per_s"] > 0 for row in costs["model"]["latency"])
    # without onnxruntime
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "onnxruntime", None)
        inspect_model.main(["--model_path", "student/ckpt", "--use_cpu"])
    assert "student/ckpt: no onnxruntime (pip install onnxruntime), so torch only" in capsys.readouterr().out
    # an export of other weights is not this model's
    write_model(Path("student", "ckpt"), **RTE)
    inspect_model.main(["--model_path", "student/ckpt", "--use_cpu"])
    assert "student/onnx was exported from another checkpoint" in capsys.readouterr().out


def test_a_models_own_teacher_is_known_by_its_content():
    write_model(Path("teacher", "ckpt"), **MANY)
    write_model(Path("student", "ckpt"), **RTE)
    digest = checkpoint_digest(Path("teacher", "ckpt"))
    settings = {"teacher_model_path": "teacher/ckpt", "inputs": {"teacher_model_path": digest}}
    Path("student/ckpt/args.json").write_text(json.dumps(settings))
    assert inspect_model.default_teacher("student/ckpt") == "teacher/ckpt"
    write_model(Path("teacher", "ckpt"), **RTE)
    assert inspect_model.default_teacher("student/ckpt") is None


def test_models_that_cannot_be_measured_are_refused(capsys):
    write_model(Path("ckpt"), **RTE)
    flags = ["--model_path", "ckpt"]
    assert "no: no folder" in refused(inspect_model, capsys, *flags, "--teacher_model_path", "no")
    assert "--json no/a: expected a file" in refused(inspect_model, capsys, *flags, "--json", "no/a")
    assert "--repeats" in refused(inspect_model, capsys, *flags, "--repeats", "9")


def count(heads: int, neurons: int, layers: int = 3) -> int:
    """Parameters without embeddings of a model of write_model with so many heads and neurons in all its layers."""
    per_head, per_neuron, per_layer = 8 * (4 * 32 + 3), 2 * 32 + 1, 6 * 32
    return heads * per_head + neurons * per_neuron + layers * per_layer + 32 * 32 + 32 + 2 * 32 + 2


def test_a_budget_names_the_largest_students_that_fit(capsys):
    model = write_model(Path("ckpt"), **RTE)
    flags = ["--model_path", "ckpt", "--use_cpu", "--budget"]
    two_layers = count(8, 64, 2)
    inspect_model.main([*flags, str(two_layers)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == f"--student_layer 2 ({two_layers:,} parameters)"
    assert "not; python run_pruning.py --task_name <task> --model_path ckpt makes one" in lines[-1]
    inspect_model.main([*flags, str(two_layers - 1)])
    assert f"--student_layer 1 ({count(4, 32, 1):,} parameters)" in capsys.readouterr().out.splitlines()
    line = refused(inspect_model, capsys, *flags, "0.5k")
    smallest = f"--student_layer 1 ({count(4, 32, 1):,} parameters)"
    assert line == f"error: --budget 0.5k parameters: no student fits; the smallest are {smallest}"

    # sorted: at 50 % half of the 12 heads and 96 neurons go, all from the first layers
    order = torch.arange(3.0)[:, None]
    sort_units(model, Units(order + torch.arange(4) / 4, order + torch.arange(32) / 32))
    model.save_pretrained("ckpt")
    inspect_model.main([*flags, str(count(6, 48)), "--json", "sizes.json"])
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"--student_layer 1 ({count(4, 32, 1):,} parameters)",
        f"--student_sparsity 50 ({count(6, 48):,} parameters)",
    ]
    sizes = {(size["flag"], size["value"]): size for size in json.loads(Path("sizes.json").read_text())["students"]}
    assert len(sizes) == 3 + 10
    assert sizes["--student_sparsity", 0]["parameters"] == sizes["--student_layer", 3]["parameters"] == count(12, 96)
    inspect_model.main([*flags, f"{count(2, 16)}"])
    assert "no --student_layer fits, the smallest is --student_layer 1 (" in capsys.readouterr().out

    # one that is cut already is only cut further
    cut(model, 70).save_pretrained("ckpt")
    inspect_model.main([*flags, "1M", "--json", "sizes.json"])
    sizes = json.loads(Path("sizes.json").read_text())["students"]
    assert [size["value"] for size in sizes if size["flag"] == "--student_sparsity"] == [70, 80, 90]


def test_units_of_a_budget():
    found = [budget.parse_budget(text) for text in ("5_000", "800k", "1.5 M", "2B", "20ms")]
    assert [one.parameters for one in found] == [5000, 800_000, 1_500_000, 2_000_000_000, math.inf]
    assert [one.milliseconds for one in found] == [*[math.inf] * 4, 20]


def test_a_budget_of_milliseconds_is_measured(capsys):
    write_model(Path("ckpt"), [0, 1], **RTE)
    flags = ["--model_path", "ckpt", "--use_cpu", "--repeats", "10", "--budget"]
    inspect_model.main([*flags, "1000000ms", "--batch_size", "2", "--length", "9"])
    output = capsys.readouterr().out
    assert "the largest within 1000000ms at batch size 2 and 9 tokens:\n--student_layer 2 (" in output
    assert "no student fits; the smallest are --student_layer 1 (" in refused(
        inspect_model, capsys, *flags, "0.000001ms"
    )
    assert "--length 41: the model takes 40 tokens at most" in refused(
        inspect_model, capsys, *flags, "1ms", "--length", "41"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--budget", "5X"], "argument --budget: found '5X', expected parameters as in 5M"),
        (["--budget", "0"], "argument --budget: found '0'"),
        (["--budget", "-5ms"], "--budget"),
        (["--budget", "5M", "--length", "8"], "--length: for a --budget of milliseconds"),
        (["--batch_size", "8"], "--batch_size: for a --budget of milliseconds"),
        (["--budget", "5M", "--teacher_model_path", "ckpt"], "--teacher_model_path: not with --budget"),
    ],
)
def test_budgets_without_a_meaning_are_refused(capsys, flags, message):
    assert message in refused(inspect_model, capsys, "--model_path", "ckpt", *flags)
