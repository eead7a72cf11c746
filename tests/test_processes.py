"""Two processes do what one does, to rounding, and only one of them writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_task
from two_processes import results

ROOT = Path(__file__).parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
QUICK = ["--num_train_epochs", "2", "--learning_rate", "1e-3", "--log_interval", "4", "--use_cpu"]


def run_on_two(*command: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    return subprocess.run([*TORCHRUN, *command], capture_output=True, text=True, env=environment, check=False)


def test_two_processes_train_and_predict_like_one(tmp_path, bert_folder, tokenizer):
    write_task(tmp_path / "datasets", "rte")
    script, result = ROOT / "tests" / "two_processes.py", tmp_path / "found.json"
    done = run_on_two(str(script), str(bert_folder), str(result), str(tmp_path / "datasets"))
    assert done.returncode != 0  # of its last line
    assert "runs on one process, found 2: no torchrun" in done.stderr
    found, wanted = json.loads(result.read_text()), results(tokenizer)
    assert found[0] == found[1]  # both know all of it
    for ours, alone in zip(found[0]["logits"], found[1]["logits"], strict=True):
        assert ours == alone
    for ours, alone in zip(found[0]["histories"], wanted["histories"], strict=True):
        assert len(ours) == len(alone) == 4
        for entry, other in zip(ours, alone, strict=True):
            assert entry == pytest.approx(other, abs=1e-5)


def test_a_stage_on_two_processes_writes_once_and_counts_every_row(tmp_path, monkeypatch, bert_folder):
    write_task(tmp_path / "datasets", "rte")  # 21 rows of dev and 9 of test: neither can be halved
    monkeypatch.chdir(tmp_path)
    done = run_on_two(str(ROOT / "run_finetuning.py"), "--model_path", str(bert_folder), "--do_test", *QUICK)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "outputs" / "finetune" / "ft_rte"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["updates"] == 4  # 50 rows, 2 processes x 16
    assert metrics["dev"]["acc"] * 21 == pytest.approx(round(metrics["dev"]["acc"] * 21))
    assert len((folder / "RTE.tsv").read_text().splitlines()) == 10
    assert (folder / "log.txt").read_text().count("done in") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["RTE.tsv", "args.json", "ckpt", "log.txt", "metrics.json"]
