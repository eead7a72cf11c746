"""Predictions that checkpoints keep: for which rows, whether all metrics follow from them, and what is left of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import small_config, write_task, write_vocabulary

import run_distillation
import run_finetuning
import run_pruning
import run_rewinding
from models.bert import PrunableBert
from utils.errors import InputError
from utils.metrics import METRICS
from utils.predictions import PREDICTIONS, read_predictions, save_predictions
from utils.readers import read_split
from utils.submission import score_cells

QUICK = ["--num_train_epochs", "2", "--learning_rate", "1e-3", "--log_interval", "4"]
BOTH = ["--student_layer", "2", "--teacher_model_path", "teacher", "--student_model_path", "teacher"]
SORTED = [*BOTH, "--teacher_model_path", "outputs/prune/ft_rte/ckpt"]
REWIND = Path("outputs/rewind/layer_dropped")


def read(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def check(folder: Path, metric: str) -> np.ndarray:
    """The columns of a checkpoint, after a comparison of their metrics with those of its result."""
    columns = read_predictions(folder)
    assert METRICS[metric](columns["prediction"], columns["label"]) == read(folder)["report"]
    return columns


def test_every_stage_that_trains_keeps_what_its_metrics_follow_from(workplace):
    run_finetuning.main([*QUICK, "--model_path", "teacher"])
    run_distillation.main([*QUICK, *BOTH])
    run_distillation.main([*QUICK, *BOTH, "--model_type", "ft"])
    run_pruning.main(["--model_path", "teacher"])  # a teacher that can be cut
    run_rewinding.main([*QUICK, *SORTED, "--teacher_sparsity", "0", "50"])
    folders = [path.parent for path in Path("outputs").glob("**/ckpt*/metrics.json") if "prune" not in path.parts]
    assert len(folders) == 5
    expected = read_split("rte", "datasets", "dev").labels
    for folder in folders:
        columns = check(folder, "acc")
        assert columns["label"].tolist() == list(expected)
        assert (folder / PREDICTIONS).stat().st_size < 300
    # the same again without weights, which leave the result as it is
    [first] = REWIND.glob("*/ckpt_0")
    before = (first / PREDICTIONS).read_bytes()
    (first / "model.safetensors").unlink()
    run_rewinding.main([*QUICK, *SORTED, "--teacher_sparsity", "0"])
    assert not (first / "model.safetensors").exists()
    assert (first / PREDICTIONS).read_bytes() == before
    run_rewinding.main([*QUICK, *SORTED, "--teacher_sparsity", "0", "--overwrite"])
    assert (first / "model.safetensors").exists()
    assert (first / PREDICTIONS).read_bytes() == before


def test_scores_are_kept_whole_and_only_of_the_rows_reported(tmp_path, monkeypatch):
    write_task(tmp_path / "datasets", "stsb")
    monkeypatch.chdir(tmp_path)
    PrunableBert(small_config(num_labels=1)).save_pretrained("teacher")
    write_vocabulary(Path("teacher"))
    run_distillation.main([*QUICK, *BOTH, "--task_name", "stsb", "--selection_split", "half"])
    columns = check(Path("outputs/distil/layer_dropped/kd_2_stsb/ckpt"), "corr")
    assert len(columns) == 10
    assert len(set(columns["prediction"].tolist())) > 5


def test_a_student_that_halving_drops_keeps_those_of_the_weights_that_it_keeps(workplace):
    run_pruning.main(["--model_path", "teacher"])
    run_rewinding.main([*QUICK, *SORTED, "--teacher_sparsity", "0", "50", "--halving", "0", "50"])
    folders = sorted(REWIND.glob("*/ckpt_*"))
    assert sum(read(folder)["dropped_at"] is not None for folder in folders) == 1
    for folder in folders:
        check(folder, "acc")


def test_a_file_that_is_damaged_or_other_is_named_and_none_is_none(tmp_path):
    assert read_predictions(tmp_path) is None
    save_predictions(tmp_path, np.array([1, 0, 2]), np.array([1, 1, 300]))
    path = tmp_path / PREDICTIONS
    columns = read_predictions(tmp_path)
    assert (columns["label"].tolist(), columns["prediction"].tolist()) == ([1, 1, 300], [1, 0, 2])
    save_predictions(tmp_path, np.array([1, 40_000]), np.array([1, 300]))
    assert read_predictions(tmp_path)["prediction"].tolist() == [1, 40_000]
    whole = path.read_bytes()
    for content in (whole[:-3], whole[:20], b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"{PREDICTIONS}: not a NumPy file of predictions: "):
            read_predictions(tmp_path)
    np.save(path, np.arange(3))
    with pytest.raises(InputError, match=r"columns None, expected \('label', 'prediction'\)"):
        read_predictions(tmp_path)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not a NumPy file"):
        read_predictions(tmp_path)


@pytest.mark.parametrize(("scale", "is_warned_of"), [(1.0, False), (0.2, True)])
def test_a_teacher_of_another_scale_is_warned_of(tmp_path, monkeypatch, caplog, scale, is_warned_of):
    write_task(tmp_path / "datasets", "stsb")
    monkeypatch.chdir(tmp_path)
    labels = read_split("stsb", "datasets", "dev").labels
    teacher = PrunableBert(small_config(num_labels=1))
    with torch.no_grad():
        last = teacher.cls[-1]
        last.weight.zero_()
        last.bias.fill_(scale * float(np.mean(labels)))
    teacher.save_pretrained("teacher")
    write_vocabulary(Path("teacher"))
    run_pruning.main(["--task_name", "stsb", "--model_path", "teacher"])
    assert ("is it of another scale?" in caplog.text) == is_warned_of
    caplog.clear()
    run_finetuning.main(["--task_name", "stsb", "--model_path", "teacher", *QUICK])  # which begins off scale
    assert "of another scale" not in caplog.text


def test_scores_of_a_far_range_are_told_apart():
    assert score_cells(1_000_050.26) == ["1000050.3"]
