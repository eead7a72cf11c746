"""Our numbers equal those of the paper's code, through the command line."""

import json
from pathlib import Path

import pytest
import torch
from conftest import REFERENCE
from safetensors.torch import load_file

import run_pruning
import run_sparsification
from models.bert import PrunableBert
from models.pruning import cut
from utils.batches import tokenise
from utils.evaluation import predict
from utils.readers import read_split
from utils.tokenizer import load_tokenizer

EXPECTED = load_file(REFERENCE / "expected.safetensors")
EXPECTED_JSON = json.loads((REFERENCE / "expected.json").read_text())
DATA = ["--data_dir", str(REFERENCE / "data"), "--max_length", "64", "--use_cpu"]
STUDENTS = {"pruned50": ["--student_sparsity", "50"], "layer2": ["--student_layer", "2"]}


def relative_error(ours: torch.Tensor, reference: torch.Tensor) -> float:
    return ((ours - reference).abs().max() / reference.abs().max()).item()


def dev_logits(path: Path) -> torch.Tensor:
    model = PrunableBert.from_pretrained(path)
    dev = tokenise(read_split("rte", str(REFERENCE / "data"), "dev"), load_tokenizer(str(path)), 64)
    return predict(model, dev, 32)


@pytest.mark.parametrize("name", ["teacher", "student_pruned50", "student_layer2"])
def test_logits_of_the_papers_checkpoints(name):
    expected = EXPECTED[f"rte.{name.removeprefix('student_')}.dev_logits"]
    assert relative_error(dev_logits(REFERENCE / f"rte_{name}"), expected) < 1e-4


def test_pruning_scores_and_sparsity_map(tmp_path):
    run_pruning.main([*DATA, "--model_path", str(REFERENCE / "rte_teacher"), "--output_dir", str(tmp_path)])
    scores = load_file(tmp_path / "ft_rte" / "ckpt" / "scores.safetensors")
    for kind in ("head", "neuron"):
        assert relative_error(scores[f"{kind}_expressive"], EXPECTED[f"rte.{kind}_expressive"]) < 1e-4
    config = json.loads((tmp_path / "ft_rte" / "ckpt" / "config.json").read_text())
    assert config["sparsity"] == "0"
    assert config["sparsity_map"] == EXPECTED_JSON["rte.prune.sparsity_map"]


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("lam", ["0.0", "0.5", "1.0"])
def test_sparsification_scores_maps_and_losses(tmp_path, student, lam):
    paths = [
        *("--teacher_model_path", str(REFERENCE / "rte_teacher")),
        *("--student_model_path", str(REFERENCE / f"rte_student_{student}")),
        *("--output_dir", str(tmp_path)),
    ]
    run_sparsification.main([*DATA, *paths, *STUDENTS[student], "--lam", lam])
    [folder] = tmp_path.glob(f"*/kd_*_rte_{lam}")
    scores = load_file(folder / "ckpt" / "scores.safetensors")
    for kind in ("head", "neuron"):
        expressive, friendly = EXPECTED[f"rte.{kind}_expressive"], EXPECTED[f"rte.{student}.{kind}_friendly"]
        assert relative_error(scores[f"{kind}_expressive"], expressive) < 1e-4
        assert relative_error(scores[f"{kind}_friendly"], friendly) < 1e-4
        mixed = float(lam) * expressive + (1 - float(lam)) * friendly
        assert relative_error(scores[f"{kind}_knowledgeable"], mixed) < 1e-4
    losses = json.loads((folder / "metrics.json").read_text())["distillation_loss_per_dev_batch"]
    assert losses == pytest.approx(EXPECTED_JSON[f"rte.{student}.distillation_loss_per_dev_batch"], abs=1e-5)
    if (key := f"rte.{student}.lam{lam}.sparsity_map") in EXPECTED_JSON:
        assert json.loads((folder / "ckpt" / "config.json").read_text())["sparsity_map"] == EXPECTED_JSON[key]


def test_lam_1_is_stage_2(tmp_path):
    teacher, student = REFERENCE / "rte_teacher", REFERENCE / "rte_student_pruned50"
    run_pruning.main([*DATA, "--model_path", str(teacher), "--output_dir", str(tmp_path / "prune")])
    paths = ["--teacher_model_path", str(teacher), "--student_model_path", str(student)]
    run_sparsification.main([*DATA, *paths, "--lam", "1", "--output_dir", str(tmp_path / "stark")])
    [stark] = (tmp_path / "stark").glob("*/*/ckpt")
    prune = tmp_path / "prune" / "ft_rte" / "ckpt"
    assert (stark / "model.safetensors").read_bytes() == (prune / "model.safetensors").read_bytes()
    maps = [json.loads((folder / "config.json").read_text())["sparsity_map"] for folder in (stark, prune)]
    assert maps[0] == maps[1]


def test_a_checkpoint_of_the_papers_code_can_be_cut_deeper():
    student = PrunableBert.from_pretrained(REFERENCE / "rte_student_pruned50")
    deeper = cut(student, 90)
    assert [layer.self_attention.heads for layer in deeper.layers] == [1, 0, 0, 1]
    assert sorted(deeper.config.sparsity_map) == ["90"]
