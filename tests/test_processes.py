"""Two processes do what one does, to rounding, and only one of them writes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import refused, wait_until, write_task
from two_processes import results

import run_finetuning
from utils.resume import StateFile

ROOT = Path(__file__).parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
QUICK = ["--num_train_epochs", "2", "--learning_rate", "1e-3", "--log_interval", "4", "--use_cpu"]


# what a user has set for other programs changes nothing here
FOREIGN = {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_USE_FSDP": "true", "OMPI_COMM_WORLD_SIZE": "3"}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), **FOREIGN}


def run_on_two(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run([*TORCHRUN, *command], capture_output=True, text=True, env=ENVIRONMENT, check=False)


def test_two_processes_train_and_predict_like_one(tmp_path, bert_folder, tokenizer):
    write_task(tmp_path / "datasets", "rte")
    script, result = ROOT / "tests" / "two_processes.py", tmp_path / "found.json"
    done = run_on_two(str(script), str(bert_folder), str(result), str(tmp_path / "datasets"))
    assert done.returncode != 0  # of its last line
    assert "runs on one process, found 2: no torchrun" in done.stderr
    found = json.loads(result.read_text())
    wanted = results(tokenizer)
    assert found[0] == found[1]  # both know all of it
    assert (found[0]["broadcast"], found[0]["sum"]) == (0, 3)
    for ours, alone in zip(found[0]["logits"], found[1]["logits"], strict=True):
        assert ours == alone
    for ours, alone in zip(found[0]["histories"], wanted["histories"], strict=True):
        assert len(ours) == len(alone) == 4
        for entry, other in zip(ours, alone, strict=True):
            assert entry == pytest.approx(other, abs=1e-5)


def test_a_stage_on_two_processes_writes_once_and_counts_every_row(tmp_path, monkeypatch, capsys, bert_folder):
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
    line = refused(run_finetuning, capsys, "--model_path", str(bert_folder), *QUICK)
    assert "holds a run with other arguments: processes 2, now 1; --overwrite starts afresh" in line


def test_what_other_launchers_leave_beside_a_plain_run_is_named_and_ignored():
    left = {"WORLD_SIZE": "2", "PMI_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
    code = "from utils import processes; print(processes.start(True), processes.world_size(), processes.rank())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**ENVIRONMENT, **left}, timeout=120, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (0, "cpu 1 0\n"), done.stderr
    assert done.stderr == (
        "WORLD_SIZE=2 OMPI_COMM_WORLD_SIZE=3 PMI_SIZE=2 ignored: torchrun alone starts several processes\n"
    )


def test_several_processes_leave_at_once_with_one_line(tmp_path, monkeypatch, bert_folder):
    write_task(tmp_path / "datasets", "rte")
    monkeypatch.chdir(tmp_path)
    flags = ["--num_train_epochs", "5000", "--num_patience_epochs", "0", "--save_interval", "1", *QUICK[2:]]
    command = [*TORCHRUN, str(ROOT / "run_finetuning.py"), "--model_path", str(bert_folder), *flags]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    folder = tmp_path / "outputs" / "finetune" / "ft_rte"
    wait_until((folder / ".ckpt.state").exists)
    run.send_signal(signal.SIGTERM)  # which torchrun passes on
    _, errors = run.communicate(timeout=120)
    assert run.returncode != 0
    assert errors.count("stopped by SIGTERM") == 1
    assert (folder / "log.txt").read_text().endswith("stopped by SIGTERM\n")
    assert StateFile.run_id_of(folder / ".ckpt.state") is not None  # whole
