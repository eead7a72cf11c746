"""The benchmark: both variants do the same work, and its last line is the result."""

import json
import shutil
import sys

import pytest
import torch
from conftest import refused, write_task

from models.checkpoint import load_model
from models.losses import task_loss
from models.scores import WINDOW, mask_gradients
from scripts import benchmark, benchmark_trainer, product_rates
from utils.cache import load_examples
from utils.tokenizer import load_tokenizer


@pytest.fixture
def prepared(tmp_path, bert_folder):
    data = write_task(tmp_path / "datasets", "rte", sizes=(50, 40, 9))
    flags = ["--data_dir", str(data), "--model_path", str(bert_folder), "--student_layer", "2", "--updates", "10"]
    args = benchmark.parse_args([*flags, "--max_length", "32"])
    folder = tmp_path / "benchmark"
    folder.mkdir()
    benchmark.prepare(args, folder)
    return args, folder


def test_both_variants_make_the_same_updates_and_evaluations(prepared):
    args, folder = prepared
    counts = []
    for variant in benchmark.VARIANTS:
        assert set(benchmark.rewind(args, folder, variant)) == {"seconds", "steps_per_s"}
        [path] = (folder / variant).glob("*/*/metrics.json")
        rows = json.loads(path.read_text())["sparsity"]
        counts.append({s: (row["updates"], [entry["update"] for entry in row["history"]]) for s, row in rows.items()})
    assert counts[0] == counts[1] == {s: (10, [10]) for s in ("0", "50")}
    before = path.stat().st_mtime_ns
    benchmark.rewind(args, folder, variant)
    assert path.stat().st_mtime_ns > before  # a repeat is measured anew


def test_flags_reach_the_rewind_or_are_refused(prepared, capsys):
    args, folder = prepared
    benchmark.rewind(args, folder, "ours")
    [path] = (folder / "ours").glob("*/*/args.json")
    assert json.loads(path.read_text())["max_length"] == 32
    capsys.readouterr()
    data = ["--data_dir", str(folder / "data"), "--use_cpu"]
    assert "--selection_split: has no effect here" in refused(benchmark, capsys, *data, "--selection_split", "half")
    assert "--compile: has no effect" in refused(benchmark_trainer, capsys, *data, "--compile")
    assert "nowhere" in refused(benchmark, capsys, *data, "--model_path", "nowhere")
    layers = ["--model_path", str(folder / "teacher"), "--student_layer", "9"]
    assert "only 3 layers" in refused(benchmark, capsys, *data, *layers)


def test_scoring_as_in_the_papers_code_gives_the_same_scores(prepared):
    _, folder = prepared
    teacher = load_model(str(folder / "teacher"), ("not_entailment", "entailment"))
    dev = load_examples("rte", str(folder / "data"), "dev", load_tokenizer(str(folder / "teacher")), 32)
    [padded] = benchmark.padded_mask_gradients(teacher, dev, [task_loss], 32)
    teacher.use_exact_shortcuts(True)
    [ours] = mask_gradients(teacher, dev.eval_batches(16, window=WINDOW), [task_loss])
    for kind, other in zip(ours, padded, strict=True):
        torch.testing.assert_close(kind, other, atol=1e-6, rtol=1e-4)


def test_the_drawn_rows_are_rows_of_the_training_set(prepared, tmp_path):
    _, folder = prepared
    drawn, whole = (
        (path / "rte" / "train.tsv").read_text().split("\n") for path in (folder / "data", tmp_path / "datasets")
    )
    assert drawn[0] == whole[0]
    assert len(drawn) == 1 + 16 + 1
    assert set(drawn) <= set(whole)


def test_the_last_line_is_one_json_object(prepared, capsys):
    args, _ = prepared
    runs = [{"seconds": 8.0, "peak_mb": 9.0, "steps_per_s": 1.0}, {"seconds": 2.0, "peak_mb": 5.0, "steps_per_s": 4.0}]
    results = {
        (stage, variant): [run] * 3
        for stage in ("score", "rewind")
        for variant, run in zip(benchmark.VARIANTS, runs, strict=True)
    }
    benchmark.print_medians(args, results)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["rewind_speedup"], last["score_speedup"], last["rewind_peak_mb"]) == (4.0, 4.0, [9, 5])
    assert last["steps_per_s"] == [1.0, 4.0]
    assert last["hardware"]
    assert last["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert last["flags"] == []


def test_the_peak_of_a_gpu_replaces_that_of_the_process(prepared, capsys):
    _, folder = prepared
    flags = ["--data_dir", str(folder / "data"), "--max_length", "32", "--use_bf16", "--use_cpu"]
    for variant in benchmark.VARIANTS:
        benchmark.main([*flags, "--worker", f"score/{variant}", "--folder", str(folder)])
        assert set(json.loads(capsys.readouterr().out.splitlines()[-1])) == {"seconds"}  # the GPU's memory, with one
    assert torch.get_float32_matmul_precision() == "highest"


def test_rates_of_products_are_of_the_shapes_and_the_faster_one_is_named(capsys, monkeypatch):
    monkeypatch.setattr(product_rates, "SECONDS", 0.001)
    product_rates.main(["--hidden_size", "32", "--intermediate_size", "64"])
    lines = capsys.readouterr().out.splitlines()
    kinds = lines[1].split()[1:]
    assert kinds[:2] == ["torch", "bfloat16"]
    assert [line.split(")")[0].strip() for line in lines[2:8]] == [
        f"({rows}, 32, {out}" for rows in product_rates.ROWS for out in (32, 64)
    ]
    largest = dict(zip(kinds, map(float, lines[3].split(")")[1].split()), strict=True))
    float32 = max(largest[kind] for kind in kinds if kind != "bfloat16")
    assert largest[lines[8].split(", ")[1].split()[0]] == float32


def test_a_rewind_with_transformers_trainer_makes_the_same_updates_and_evaluations(prepared, monkeypatch):
    args, folder = prepared
    monkeypatch.setitem(sys.modules, "datasets", None)
    shutil.rmtree(folder)
    folder.mkdir()
    args.device = "cpu"
    benchmark_trainer.prepare(args, folder)
    ours = benchmark_trainer.rewind(args, folder)
    theirs = benchmark_trainer.rewind_with_trainer(args, folder, grouped=True)
    assert {**ours, "seconds": 0} == {**theirs, "seconds": 0} == {"seconds": 0, "updates": 10, "evaluations": 1}
    assert min(ours["seconds"], theirs["seconds"]) > 0
