"""The grid of a sweep, and a sweep that is killed half way and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import write_task

from scripts import sweep

ROOT = Path(__file__).parent.parent
FLAGS = [
    "--model_path",
    "bert",
    "--task_name",
    "rte",
    "stsb",
    "--student_layer",
    "2",
    "--teacher_sparsity",
    "0",
    "50",
    "--poll_seconds",
    "0.2",
    "--jobs",
    "2",
]
TRAINING = ["--train_flags=--num_train_epochs 1 --learning_rate 1e-3", "--flags=--use_cpu"]


def test_a_grid_shares_teachers_and_orders_cells_by_need():
    flags = [
        "--task_name",
        "rte",
        "mrpc",
        "--student_layer",
        "4",
        "--student_sparsity",
        "70",
        "--lam",
        "0",
        "1",
        "--seed",
        "1",
        "2",
    ]
    cells = sweep.grid(sweep.parse_args(flags))
    count = {stage: sum(cell.stage == stage for cell in cells) for stage in sweep.SCRIPTS}
    assert count == {"finetune": 4, "prune": 4, "distil": 8, "stark": 16, "rewind": 16}
    for index, cell in enumerate(cells):
        assert all(need in cells[:index] for need in cell.needs)
    assert len({(cell.folder, *cell.names) for cell in cells}) == len(cells)
    others = sweep.grid(sweep.parse_args([*flags, "--score", "knowledgeable", "random"]))
    assert sum(cell.stage == "rewind" for cell in others) == 24
    assert any(cell.folder.name == "kd_4_rte_random" for cell in others)
    spread = sweep.grid(sweep.parse_args([*flags, "--spread"]))
    assert sum(cell.stage == "rewind" for cell in spread) == 160
    assert str(cells[-1].folder) == "outputs/seed_2/rewind/parameter_pruned/kd_70_mrpc_1.0"


def start(folder: Path, *flags: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "scripts" / "sweep.py"), *FLAGS, *TRAINING, *flags]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(folder: Path) -> dict[str, int]:
    """When what was made: every run's metrics.json."""
    return {
        str(path): path.stat().st_mtime_ns
        for path in folder.rglob("seed_*/*/**/metrics.json")
        if "ckpt" not in str(path)
    }


def test_a_killed_sweep_makes_what_is_missing_and_names_what_failed(tmp_path, bert_folder):
    for task in ("rte", "stsb"):
        write_task(tmp_path / "datasets", task)
    (tmp_path / "datasets" / "stsb" / "dev.tsv").write_text("")
    first = start(tmp_path)
    for _ in range(3000):
        if any("distil" in name for name in finished(tmp_path)):
            break
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = finished(tmp_path)
    assert 2 <= len(before) < 7

    again = start(tmp_path)
    output, errors = again.communicate()
    assert again.returncode == 1
    [line] = [line for line in errors.splitlines() if line.startswith("failed: ")]
    assert "outputs/seed_776/finetune/ft_stsb, see " in line
    assert "dev.tsv: no rows" in Path(tmp_path, line.split("see ")[1]).read_text()
    left_out = [row.split()[-1] for row in output.splitlines()[-5:]]
    assert left_out == ["0", "0", "1", "1", "1"]
    # the other task is complete, and nothing of it was made twice
    after = finished(tmp_path)
    assert {name: after[name] for name in before} == before
    metrics = json.loads((tmp_path / "outputs/seed_776/rewind/layer_dropped/kd_2_rte_0.5/metrics.json").read_text())
    assert list(metrics["sparsity"]) == ["0", "50"]

    refused = start(tmp_path, "--train_flags=--num_train_epochs 2")
    _, errors = refused.communicate()
    assert refused.returncode == 2
    assert "made with other arguments: --learning_rate 0.001, now 3e-05; --num_train_epochs 1, now 2" in errors


@pytest.mark.parametrize("flags", [["--lam", "2"], ["--jobs", "0"], ["--executor", "cloud"], ["--seed", "one"]])
def test_flags_out_of_range_are_refused(capsys, flags):
    with pytest.raises(SystemExit) as stop:
        sweep.main(flags)
    assert stop.value.code == 2
    assert flags[0] in capsys.readouterr().err
