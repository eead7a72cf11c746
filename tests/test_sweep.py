"""The grid of a sweep, the states of its cells, and sweeps that are killed and started again."""

import contextlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import forked, refused, wait_until, write_bert, write_task

from scripts import sweep, sweep_grid
from scripts.sweep_grid import Cell
from scripts.sweep_jobs import run_stage
from utils.errors import InputError
from utils.files import checkpoint_digest, lock, read_json, write_json
from utils.folder import RunFolder
from utils.settings import differences

GRID = ["--model_path", "bert", "--student_layer", "2", "--teacher_sparsity", "0", "50", "--poll_seconds", "0.1"]
TRAINING = "--num_train_epochs 1 --learning_rate 1e-3"
FLAGS = [*GRID, f"--train_flags={TRAINING}", "--flags=--use_cpu"]


@pytest.fixture
def tasks(tmp_path, monkeypatch, bert_folder) -> Path:
    """The current folder, with RTE and STS-B in datasets/ and an encoder in bert/."""
    for task in ("rte", "stsb"):
        write_task(tmp_path / "datasets", task)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """The outputs of all cells of RTE, which any folder with the same inputs takes for its own."""
    folder = tmp_path_factory.mktemp("made")
    write_task(folder / "datasets", "rte")
    write_bert(folder / "bert")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for cell in cells_of():
            make(cell)
    return folder / "outputs"


@pytest.fixture
def made(tasks, outputs) -> Path:
    """The current folder with these outputs, too."""
    shutil.copytree(outputs, tasks / "outputs")
    return tasks


def cells_of(*flags: str) -> list[Cell]:
    return sweep.grid(sweep.parse_args([*FLAGS, *flags]))


def make(cell: Cell, *flags: str) -> None:
    sweep.SCRIPTS[cell.stage].main([*cell.flags, *flags])


def states(cells: list[Cell]) -> list[str]:
    """The states of these cells before any is submitted."""
    for cell in cells:
        sweep.update(cell)
    return [cell.state for cell in cells]


def swept(*flags: str) -> int:
    """The exit status of a whole sweep."""
    try:
        sweep.main([*FLAGS, *flags])
    except SystemExit as stop:
        return stop.code
    return 0


def test_a_grid_shares_teachers_and_orders_cells_by_need():
    flags = ["--task_name", "rte", "mrpc", "--student_layer", "4", "--student_sparsity", "70", "--lam", "0", "1"]
    flags += ["--seed", "1", "2"]
    cells = sweep.grid(sweep.parse_args(flags))
    count = {stage: sum(cell.stage == stage for cell in cells) for stage in sweep.SCRIPTS}
    assert count == {"finetune": 4, "prune": 4, "distil": 8, "stark": 16, "rewind": 16}
    for index, cell in enumerate(cells):
        assert all(need in cells[:index] for need in cell.needs)
    assert len({(cell.folder, *cell.names) for cell in cells}) == len(cells)
    others = sweep.grid(sweep.parse_args([*flags, "--score", "knowledgeable", "random"]))
    assert sum(cell.stage == "rewind" for cell in others) == 24
    assert any(cell.folder.name == "kd_4_rte_random" for cell in others)
    scheduled = sweep.grid(sweep.parse_args([*flags, "--teacher_schedule", "50", "0"]))
    assert sum(cell.stage == "rewind" for cell in scheduled) == 32
    matched = sweep.grid(sweep.parse_args([*flags, "--match_spread", "30"]))
    added = [cell for cell in matched if cell.folder.name.endswith("_spread_30")]
    assert len(matched) == len(cells) + len(added)
    assert len(added) == 16
    assert all(cell.names == ["ckpt_0"] for cell in added)
    spread = sweep.grid(sweep.parse_args([*flags, "--spread"]))
    assert sum(cell.stage == "rewind" for cell in spread) == 160
    assert str(cells[-1].folder) == "outputs/seed_2/rewind/parameter_pruned/kd_70_mrpc_1.0"
    choices = sweep.grid(sweep.parse_args([*flags, "--layer_choice", "last", "0,3,7,11"]))
    assert sum(cell.stage == "rewind" for cell in choices) == 24  # a pruned student has one
    assert {cell.folder.name for cell in choices if cell.stage == "distil" and "rte" in cell.folder.name} == {
        *("kd_4-last_rte", "kd_4-0.3.7.11_rte", "kd_70_rte")
    }


def test_the_folders_of_cells_are_those_that_the_stages_write(tasks):
    variants = ["--teacher_schedule", "50", "0", "--match_spread", "50"]
    for flags in (["--student_sparsity", "70", "--lam", "1", "--halving"], ["--score", "magnitude", *variants]):
        cells = cells_of(*flags, "--teacher_sparsity", "50", "0")
        for cell in cells:
            if states([cell]) != ["done"]:
                make(cell)
            assert all((cell.folder / name / "metrics.json").is_file() for name in cell.names)
        assert set(states(cells)) == {"done"}


def test_each_layer_choice_of_a_sweep_has_its_own_trial_and_teacher(tasks):
    cells = cells_of("--layer_choice", "first", "spaced")
    for cell in cells:
        make(cell)
    assert set(states(cells)) == {"done"}
    assert cells[-1].folder.name == "kd_2-spaced_rte_0.5"
    outputs = Path("outputs/seed_776")
    for run, choice in ("layer_dropped/kd_2_rte", "first"), ("layer_dropped/kd_2-spaced_rte", "spaced"):
        sparse, rewound = RunFolder(outputs / "stark" / f"{run}_0.5"), RunFolder(outputs / "rewind" / f"{run}_0.5")
        trial = checkpoint_digest(outputs / "distil" / run / "ckpt")
        assert sparse.settings("ckpt")["inputs"]["student_model_path"] == trial
        assert rewound.names() == ["ckpt_0", "ckpt_50"]
        for settings in map(rewound.settings, rewound.names()):
            assert settings["layer_choice"] == choice
            assert settings["inputs"]["teacher_model_path"] == checkpoint_digest(sparse.path / "ckpt")


def test_a_cell_is_done_when_all_its_checkpoints_are_and_what_is_derived_from_them(made):
    *before, rewind = cells_of()
    shutil.rmtree(rewind.folder)
    make(rewind, "--teacher_sparsity", "50")
    assert states(cells_of()) == ["done", "done", "done", "waiting"]
    assert states(cells_of("--spread")) == ["done", "done", "done", "waiting", "done"]
    make(rewind)
    assert states(cells_of()) == ["done"] * 4
    assert states(cells_of(f"--train_flags={TRAINING} --do_test"))[0] == "waiting"  # for its predictions
    made = (rewind.folder / "ckpt_50" / "model.safetensors").stat().st_mtime_ns
    metrics = read_json(rewind.folder / "metrics.json")
    write_json(rewind.folder / "metrics.json", {**metrics, "sparsity": {"0": metrics["sparsity"]["0"]}})
    assert states(cells_of())[-1] == "waiting"  # stopped between its last checkpoint and its table
    assert states(cells_of("--spread"))[-2:] == ["done", "waiting"]
    make(rewind)
    assert read_json(rewind.folder / "metrics.json") == metrics
    assert (rewind.folder / "ckpt_50" / "model.safetensors").stat().st_mtime_ns == made
    # a stopped run with --overwrite has begun to make it anew
    teacher = before[0]
    RunFolder(teacher.folder).overwrite(teacher.names, teacher.settings)
    assert states(cells_of()) == ["waiting"] * 4


def test_a_diverged_cell_is_failed_in_the_first_sweep_and_in_the_next(tasks, capsys):
    flags = [f"--train_flags={TRAINING} --learning_rate 1e38 --max_grad_norm 0 --warmup_proportion 1 --log_interval 1"]
    with pytest.raises(SystemExit):
        make(cells_of(*flags)[0])
    for _ in range(2):
        capsys.readouterr()
        assert swept(*flags) == 1
        captured = capsys.readouterr()
        [line] = captured.err.splitlines()
        assert line.startswith("failed: outputs/seed_776/finetune/ft_rte: ")
        assert "nan" in line or "not numbers" in line
        assert [row.split()[-1] for row in captured.out.splitlines()[-5:]] == ["0", "0", "1", "1", "1"]


def test_of_a_spread_rewind_only_the_diverged_part_is_failed(made, capsys):
    cell = cells_of()[-1]
    path = cell.folder / "ckpt_50" / "metrics.json"
    write_json(path, {**read_json(path), "diverged": "the loss of update 3 is nan"})
    assert swept() == 1
    assert f"failed: {cell.folder}: ckpt_50: the loss of update 3 is nan" in capsys.readouterr().err
    spread = cells_of("--spread")
    assert states(spread)[-2:] == ["done", "failed"]
    make(spread[-2])  # exit status 0


def test_a_cell_made_with_other_arguments_is_refused_and_the_others_go_on(made, capsys):
    for cell in cells_of("--task_name", "stsb"):
        make(cell)
    teacher = cells_of("--train_flags=--num_train_epochs 2")[0]
    assert states([teacher]) == ["refused"]
    make(teacher, "--overwrite")
    capsys.readouterr()
    assert swept("--task_name", "rte", "stsb") == 2
    captured = capsys.readouterr()
    assert captured.err == (
        "refused: outputs/seed_776/finetune/ft_rte: holds a run with other arguments: --learning_rate 3e-05, now "
        "0.001; --num_train_epochs 2, now 1; move it away, or --flags=--overwrite\n"
    )
    counts = [row.split()[1:] for row in captured.out.splitlines()[-5:]]  # done ... refused, left out
    assert [(row[0], row[-2], row[-1]) for row in counts] == [("1", "1", "0"), ("0", "0", "0"), *[("1", "0", "1")] * 3]
    # --overwrite makes anew what was made with other arguments, and that alone
    both = cells_of("--flags=--use_cpu --overwrite", "--task_name", "rte", "stsb")
    assert states(both) == ["waiting"] * 4 + ["done"] * 4


def test_training_begun_with_other_arguments_is_refused_too(tasks):
    [teacher, *_] = cells_of()
    process = forked(make, teacher, "--num_train_epochs", "500", "--num_patience_epochs", "0", "--save_interval", "1")
    wait_until((teacher.folder / ".ckpt.state").exists)
    assert states(cells_of()) == ["elsewhere"] + ["waiting"] * 3
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert states(cells_of()) == ["refused"] + ["left out"] * 3


def test_a_cell_whose_data_is_missing_fails_with_a_line(made, capsys):
    assert swept("--task_name", "mrpc", "rte") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("failed: outputs/seed_776/finetune/ft_mrpc: datasets/mrpc: no such folder")


def holding(path: Path, ready) -> None:
    lock(path)
    ready.set()
    time.sleep(60)


def test_a_job_that_was_locked_out_is_retried_or_takes_the_others_result(tasks):
    [teacher, *_] = cells_of()
    teacher.folder.mkdir(parents=True)
    ready = multiprocessing.get_context("fork").Event()
    holder = forked(holding, teacher.folder / ".ckpt.lock", ready)
    ready.wait()
    with pytest.raises(InputError) as refusal:
        lock(teacher.folder / ".ckpt.lock")
    jobs = sweep.Jobs(sweep.parse_args(FLAGS))
    command = ["sh", "-c", 'echo "$0" >&2; exit 2', f"error: {refusal.value}"]
    job = jobs.submit(command, "")
    job.wait()

    def judged(cell: Cell) -> str:
        cell.job, cell.state = job, "running"
        return states([cell])[0]

    assert judged(teacher) == "elsewhere"
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    # it died: the cell is tried again, once
    assert (judged(teacher), judged(teacher)) == ("waiting", "failed")
    assert teacher.reason == f", see {job.paths.stderr}"
    [teacher, *_] = cells_of()
    make(teacher)
    assert judged(teacher) == "done"
    assert teacher.reason == f": finished, but its job left with an error, see {job.paths.stderr}"


def test_a_killed_sweep_makes_what_is_missing_on_all_cards_and_names_what_failed(made, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    *before, rewind = cells_of()
    shutil.rmtree(rewind.folder)
    shutil.copytree("datasets/stsb", "datasets/mrpc")
    for task in ("stsb", "mrpc"):
        Path("datasets", task, "train.tsv").write_text("")
    first = forked(swept)
    wait_until((rewind.folder / ".ckpt_0.lock").exists)
    os.kill(first.pid, signal.SIGKILL)
    first.join()

    times = {cell.title: (cell.folder / "ckpt" / "metrics.json").stat().st_mtime_ns for cell in before}
    capsys.readouterr()
    assert swept("--task_name", "rte", "stsb", "mrpc", "--jobs", "2") == 1
    captured = capsys.readouterr()
    for line, task in zip(sorted(captured.err.splitlines()), ("mrpc", "stsb"), strict=True):
        assert line.startswith(f"failed: outputs/seed_776/finetune/ft_{task}, see ")
        assert "train.tsv: no rows" in Path(line.split("see ")[1]).read_text()
    assert [row.split()[-1] for row in captured.out.splitlines()[-5:]] == ["0", "0", "2", "2", "2"]
    logs = [path.read_text() for path in Path("outputs/jobs").glob("*_log.out")]
    cards = [log.split("CUDA_VISIBLE_DEVICES=")[1].split()[0] for log in logs if "CUDA_VISIBLE_DEVICES=" in log]
    assert {*cards} == {"5", "3"}
    # the first task is complete, and nothing of it was made twice
    assert list(json.loads((rewind.folder / "metrics.json").read_text())["sparsity"]) == ["0", "50"]
    assert {cell.title: (cell.folder / "ckpt" / "metrics.json").stat().st_mtime_ns for cell in before} == times
    assert (rewind.folder / "log.txt").read_text().count("writing to") == 1


def in_a_session(*flags: str) -> None:
    os.setsid()  # a terminal's Ctrl-C reaches all of it
    sweep.main([*FLAGS, *flags])


def processes_of(folder: Path) -> list[int]:
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            if str(folder / "outputs").encode() in command.read_bytes():
                found.append(int(command.parent.name))
    return found


@pytest.mark.parametrize(("number", "send"), [(signal.SIGINT, os.killpg), (signal.SIGTERM, os.kill)])
def test_a_stopped_sweep_stops_its_jobs_and_prints_how_to_resume(tasks, capfd, number, send):
    endless = "--train_flags=--num_train_epochs 10000 --num_patience_epochs 0"
    process = forked(in_a_session, endless, "--output_dir", str(tasks / "outputs"))
    logs = tasks / "outputs" / "jobs"
    wait_until(lambda: any("run_finetuning" in path.read_text() for path in logs.glob("*_log.out")))
    send(process.pid, number)
    process.join()
    assert process.exitcode == 128 + number
    wait_until(lambda: not processes_of(tasks))
    assert capfd.readouterr().err == "stopped; the same command goes on\n"


def logged(job) -> str:
    job.wait()
    return job.paths.stdout.read_text()


def test_a_stopped_job_waits_until_its_stage_has_saved(tasks):
    jobs = sweep.Jobs(sweep.parse_args(FLAGS))
    job = jobs.submit(["sh", "-c", "trap 'sleep 1.3; echo saved; exit 1' TERM; echo began $$; sleep 60 & wait"], "")
    wait_until(lambda: job.paths.stdout.is_file() and "\nbegan" in job.paths.stdout.read_text())
    pid = int(job.paths.stdout.read_text().split("\nbegan")[1].split()[0])
    assert os.getsid(pid) == pid  # where a terminal's Ctrl-C does not reach it beside this stop
    jobs.stop(job)
    assert logged(job).count("\nsaved") == 1


SHOW = ["sh", "-c", "echo cards $CUDA_VISIBLE_DEVICES threads $OMP_NUM_THREADS"]


@pytest.mark.parametrize(
    ("listed", "count", "flags", "given"),
    [
        ("7,2", 2, [], ["7", "2", "7"]),
        ("GPU-5f,MIG-a0", 2, [], ["GPU-5f", "MIG-a0", "GPU-5f"]),
        ("3", 1, [], ["3", "3", "3"]),
        ("4,5,-1,6", 2, ["--gpus_per_job", "2"], ["4,5", "4,5", "4,5"]),
        (None, 2, [], ["0", "1", "0"]),
        (None, 3, ["--gpus_per_job", "2"], ["0,1", "2,0", "1,2"]),
        (None, 2, ["--gpus_per_job", "0"], ["", "", ""]),
        (None, 0, [], ["", "", ""]),
    ],
)
def test_each_local_job_gets_cards_of_the_parents_list(tasks, monkeypatch, listed, count, flags, given):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert sweep.Jobs(sweep.parse_args([*FLAGS, "--jobs", "3", *flags])).free == given


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_shows_one_table_that_changes_and_a_file_one_table_after_the_other(tasks, monkeypatch, is_terminal):
    cells = cells_of()
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stdout", stream)
    first = sweep.show(cells, "")
    assert sweep.show(cells, first) == first  # which is not printed again
    cells[0].state = sweep.RUNNING
    second = sweep.show(cells, first)
    upwards = f"\033[{first.count(chr(10)) + 1}A\033[J" if is_terminal else ""
    assert stream.getvalue() == f"{first}\n{upwards}{second}\n"
    assert second.endswith(f"\nrunning: {cells[0].title}")


def test_cards_that_are_not_there_are_refused(tasks, monkeypatch, capsys):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "--gpus_per_job 1: found no GPU" in refused(sweep, capsys, *FLAGS, "--gpus_per_job", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "--gpus_per_job 3: found 2 GPUs" in refused(sweep, capsys, *FLAGS, "--gpus_per_job", "3")
    monkeypatch.setenv("PATH", "")
    assert "--executor slurm: found no srun" in refused(sweep, capsys, *FLAGS, "--executor", "slurm")


def test_local_jobs_share_the_processors_that_this_process_may_use(tasks, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    jobs = sweep.Jobs(sweep.parse_args([*FLAGS, "--jobs", "2"]))
    assert "OMP_NUM_THREADS" not in os.environ
    first = jobs.submit(SHOW, "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    second = jobs.submit(SHOW, "GPU-1")
    assert "cards 2 threads 3\n" in logged(first)
    assert "cards GPU-1 threads 5\n" in logged(second)


@pytest.mark.parametrize(
    ("gpus", "gib", "at_once", "flags", "count", "threads"),
    [
        (0, 64, 20, [], 6, 1),
        (0, 13, 20, [], 3, 2),  # 4 GiB each
        (0, 2, 20, [], 1, 6),
        (0, 64, 2, [], 2, 3),  # no more than there are rewinds
        (0, 64, 1, [], 1, 6),
        (0, 64, 20, ["--jobs", "4"], 4, 1),
        (3, 4, 20, [], 3, 2),
        (3, 4, 20, ["--gpus_per_job", "2"], 1, 6),
        (3, 64, 20, ["--gpus_per_job", "0"], 6, 1),
    ],
)
def test_without_their_number_local_jobs_are_as_many_as_there_is_room_for(
    tasks, monkeypatch, gpus, gib, at_once, flags, count, threads
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 2**12, "SC_PHYS_PAGES": gib * 2**18}.get)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    jobs = sweep.Jobs(sweep.parse_args([*FLAGS, *flags]), at_once)
    assert (len(jobs.free), jobs.threads) == (count, threads)


def test_a_slurm_job_has_one_gpu_and_the_clusters_processors_unless_flags_differ(tasks, monkeypatch, capfd):
    for name in ("srun", "sbatch"):
        Path("bin").mkdir(exist_ok=True)
        Path("bin", name).write_text("#!/bin/sh\necho Submitted batch job 12\n")
        Path("bin", name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tasks / 'bin'}:{os.environ['PATH']}")
    for flags, is_set, gpus in ([], False, 1), (["--cpus_per_job", "3", "--gpus_per_job", "2"], True, 2):
        jobs = sweep.Jobs(sweep.parse_args([*FLAGS, "--executor", "slurm", *flags]))
        jobs.submit(SHOW, jobs.free[0])
        [script] = Path("outputs/jobs").glob("*submission.sh")
        assert ("cpus-per-task=3" in script.read_text()) is is_set
        assert ("cpus-per-task" in script.read_text()) is is_set
        assert f"--gpus-per-node={gpus}\n" in script.read_text()
    # within the job
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "7")
    assert run_stage(SHOW, None, None, False) == 0
    assert "cards 1 threads 7\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--lam", "2"], "--lam: found '2'"),
        (["--jobs", "0"], "--jobs: found '0'"),
        (["--executor", "cloud"], "--executor: invalid choice"),
        (["--seed", "one"], "--seed: found 'one'"),
        (["--flags=--no_such_flag 1"], "unrecognized arguments: --no_such_flag 1"),
        (["--flags=--num_train_epochs 3"], "unrecognized arguments: --num_train_epochs 3"),
        (["--train_flags=--lam 0.3"], "unrecognized arguments: --lam 0.3"),
        (["--train_flags=--selection_metric f1"], "--selection_metric: found 'f1', expected one of acc for rte"),
        (["--student_sparsity", ""], "--student_sparsity: found '', expected an integer from 0 to 99"),
        (["--teacher_sparsity", "0", ""], "--teacher_sparsity: found '', expected an integer from 0 to 99"),
        (["--teacher_sparsity", "35"], "--teacher_sparsity: invalid choice: 35 (choose from 0, 10, 20"),
        (["--layer_choice", "0,0"], "--layer_choice: found '0,0', expected first, last, spaced, or layers"),
        (["--layer_choice", "first", "0,1,2"], "--layer_choice: found 3 layers, expected --student_layer 2"),
        (["--student_layer", "--student_sparsity", "70", "--layer_choice", "last"], "found --student_sparsity alone"),
        (["--flags=--max_length=1"], "--max_length: found '1'"),
        (["--flags=--use_cpu --seed 3"], "--flags: found --seed"),
        (["--train_flags=--output_dir=x"], "--train_flags: found --output_dir"),
    ],
)
def test_flags_out_of_range_are_refused_before_anything_is_submitted(tasks, capsys, flags, line):
    assert line in refused(sweep, capsys, *FLAGS, *flags)


def test_paused_cells_of_a_halved_sweep_start_again_when_all_have_reached_their_rung(tasks):
    def cells() -> list[Cell]:
        found = cells_of(
            "--halving", "--halving_rungs", "0.25", "--spread", f"--train_flags={TRAINING} --log_interval 1"
        )
        states(found)
        return found

    for cell in cells()[:-2]:
        make(cell)
    first, second = cells()[-2:]
    assert first.is_ready()
    make(first)
    *_, first, second = paused = cells()
    assert (first.state, first.is_ready(), second.is_ready()) == ("waiting", False, True)

    # its job has not failed; but if the other one cannot reach the rung, it is left out
    job = sweep.Jobs(sweep.parse_args(FLAGS)).submit(["true"], "")
    job.wait()
    first.job, first.state = job, "running"
    assert states([first]) == ["waiting"]
    sweep_grid.leave_out_paused(paused)
    assert first.state == "waiting"
    second.state = "failed"
    sweep_grid.leave_out_paused(paused)
    assert first.state == "left out"

    # the second one does not pause at a rung that the first one has reached
    make(second)
    *_, first, second = cells()
    assert (first.is_ready(), second.state) == (True, "done")
    make(first)
    assert {cell.state for cell in cells()} == {"done"}
    first.job, first.state = job, "running"
    assert (states([first]), first.reason) == (["done"], "")
    found = [read_json(first.folder / name / "metrics.json") for name in ("ckpt_0", "ckpt_50")]
    assert [result["dropped_at"] for result in found].count(None) == 1
    assert sorted(result["updates"] for result in found) == [1, 4]


def test_a_job_whose_errors_are_not_text_is_failed(tasks):
    [teacher, *_] = cells_of()
    teacher.job = sweep.Jobs(sweep.parse_args(FLAGS)).submit(["sh", "-c", r"printf '\377' >&2; exit 1"], "")
    teacher.job.wait()
    errors = teacher.job.paths.stderr
    assert b"\xff" in errors.read_bytes()
    teacher.state = "running"
    assert states([teacher]) == ["failed"]
    assert teacher.reason == f", see {errors}"


def test_a_halved_sweep_gives_the_same_cells_the_same_settings_spread_or_not(made):
    together, spread = (cells_of("--halving", *flags)[-1].settings for flags in ([], ["--spread"]))
    assert together["halving"] == [0, 50]
    assert not differences(together, spread)
