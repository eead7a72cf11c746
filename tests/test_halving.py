"""Successive halving drops the worse half at each rung, and those that go on end as without it."""

import json
import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from conftest import forked, refused, wait_until, write_bert, write_task

import run_distillation
import run_finetuning
import run_rewinding
import run_sparsification
from scripts import replay_halving
from utils.files import write_json
from utils.folder import RunFolder
from utils.halving import RUNGS, Competition, dropped_at, rung_updates
from utils.paths import checkpoint_name
from utils.resume import StateFile
from utils.settings import run_id

QUICK = ["--num_train_epochs", "2", "--learning_rate", "1e-3", "--log_interval", "1", "--num_patience_epochs", "0"]
FLAGS = ["--student_layer", "1", *QUICK, "--teacher_sparsity"]
SPARSITIES = (0, 50, 90)
FOLDER = Path("rewind/layer_dropped/kd_1_rte_0.5")


def history(**values: float) -> list[dict]:
    """Evaluations with these accuracies at updates u10, u20, ..."""
    return [{"update": int(name[1:]), "acc": value} for name, value in values.items()]


def test_rungs_are_evaluated_updates():
    assert rung_updates((0.125, 0.25, 0.5), total=1560, interval=15) == [195, 390, 780, 1560]
    assert rung_updates((0.125, 0.25, 0.5), total=100, interval=10) == [20, 30, 50, 100]
    assert rung_updates((0.5, 0.95), total=10, interval=10) == [10]
    assert rung_updates((0.55,), total=100, interval=5) == [55, 100]
    assert rung_updates((), total=7, interval=3) == [7]
    assert rung_updates((0, 0.5, 1), total=20, interval=5) == [10, 20]


def test_the_better_half_stays_and_of_equals_the_denser_teacher():
    histories = {
        0: history(u10=0.5, u20=0.5, u30=0.9),
        10: history(u10=0.6, u20=0.2, u30=0.3),  # best so far at 10, and at 20 because of that
        20: history(u10=0.5, u20=0.8, u30=0.1),
        30: history(u10=0.4),
        40: history(u10=0.5),
    }
    assert dropped_at(histories, [10], "acc") == {0: None, 10: None, 20: None, 30: 10, 40: 10}
    assert dropped_at(histories, [10, 20], "acc") == {0: 20, 10: None, 20: None, 30: 10, 40: 10}
    assert dropped_at(histories, [10, 20, 30], "acc") == {0: 20, 10: 30, 20: None, 30: 10, 40: 10}
    assert dropped_at(histories, [], "acc") == dict.fromkeys(histories)


def test_a_student_is_dropped_at_rungs_before_the_one_that_it_trains_to(tmp_path):
    settings = {"inputs": {}, "selection_metric": "acc"}
    for sparsity, evaluations in {0: history(u10=0.6, u20=0.7), 10: history(u10=0.5, u20=0.8)}.items():
        folder = tmp_path / checkpoint_name(sparsity)
        folder.mkdir()
        (folder / "args.json").write_text(json.dumps(settings))
        (folder / "metrics.json").write_text(json.dumps({"history": evaluations}))
    competition = Competition(RunFolder(tmp_path), settings, [0, 10], [10, 20, 40])
    assert [competition.dropped(before=rung) for rung in (10, 20, 40)] == [{}, {"ckpt_10": 10}, {"ckpt_10": 10}]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with a sparse teacher, and a full sweep from it in full/."""
    folder = tmp_path_factory.mktemp("finished")
    write_bert(folder / "bert", num_hidden_layers=2)
    write_task(folder / "datasets", "rte")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_finetuning.main(["--model_path", "bert", *QUICK])
        run_distillation.main(["--student_layer", "1", *QUICK])
        run_sparsification.main(["--student_layer", "1"])
        run_rewinding.main([*FLAGS, *map(str, SPARSITIES), "--output_dir", "full/rewind"])
    return folder


@pytest.fixture
def teacher(finished, tmp_path, monkeypatch) -> None:
    """A copy of that folder as the current one."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")


def results(root: str) -> dict[int, dict]:
    return {s: json.loads(Path(root, FOLDER, checkpoint_name(s), "metrics.json").read_text()) for s in SPARSITIES}


def assert_halved(root: str) -> None:
    """Each student was trained as far as the full sweep's histories say, and up to there like the full sweep's."""
    full, found = results("full"), results(root)
    rungs = [2, 3, 6]  # of 8 updates
    expected = dropped_at({s: result["history"] for s, result in full.items()}, rungs, "acc")
    assert {s: result["dropped_at"] for s, result in found.items()} == expected
    assert {result["dropped_at"] for result in full.values()} == {None}
    for sparsity, result in found.items():
        updates = expected[sparsity] or 8
        assert result["updates"] == updates
        assert result["history"] == [entry for entry in full[sparsity]["history"] if entry["update"] <= updates]
    [winner] = [s for s, rung in expected.items() if rung is None]
    metrics = json.loads(Path(root, FOLDER, "metrics.json").read_text())
    assert (metrics["best_teacher_sparsity"], metrics["tied"]) == (winner, [])
    assert sorted(path.name for path in Path(root, FOLDER).glob(".*")) == []


def test_students_pause_at_each_rung_and_those_that_go_on_end_as_in_the_full_sweep(teacher, capsys):
    halving = [*FLAGS, *map(str, SPARSITIES), "--halving", "--output_dir", "halved/rewind"]
    run_rewinding.main(halving)
    assert_halved("halved")
    dropped = [f"{s} % after update {result['dropped_at']}" for s, result in results("halved").items()]
    noted = ", ".join(text for text in dropped if "None" not in text)
    cards = {s: Path("halved", FOLDER, checkpoint_name(s), "README.md").read_text() for s in SPARSITIES}
    for sparsity, result in results("halved").items():
        line = f"| dropped by --halving after update | {result['dropped_at']} |"
        assert (line in cards[sparsity]) == (result["dropped_at"] is not None)
    printed = capsys.readouterr().out
    assert "--halving: of 8 updates students are compared after 2, 3, 6\n" in printed
    assert f"dropped early, with their best metric until then: {noted}\n" in printed
    # a dropped student is never the best, whatever its metric was
    dropped = next(s for s, result in results("halved").items() if result["dropped_at"])
    path = Path("halved", FOLDER, checkpoint_name(dropped), "metrics.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "dev": {"acc": 1.0}}))
    run_rewinding.main(halving)
    assert "finished before with the same arguments" in capsys.readouterr().out
    metrics = json.loads(Path("halved", FOLDER, "metrics.json").read_text())
    assert results("halved")[metrics["best_teacher_sparsity"]]["dropped_at"] is None
    assert metrics["tied"] == []
    line = refused(run_rewinding, capsys, *FLAGS, "0", "--output_dir", "halved/rewind")
    assert "--halving [0, 50, 90], now None" in line


def test_halving_that_drops_nobody_says_so(teacher, capsys):
    run_rewinding.main([*FLAGS, "0", "90", "--halving", "--log_interval", "8", "--output_dir", "rare/rewind"])
    line = "--halving: of 8 updates students are compared after none: no update before the last is evaluated\n"
    assert line in capsys.readouterr().out


def test_a_halved_sweep_that_is_killed_goes_on(teacher):
    halving = [*FLAGS, *map(str, SPARSITIES), "--halving", "--output_dir", "killed/rewind"]
    path = Path("killed", FOLDER)
    for moment in (".ckpt_50.state", "ckpt_*"):  # at the first rung, and when the first one was dropped
        process = forked(run_rewinding.main, halving)
        wait_until(lambda moment=moment: any(path.glob(moment)))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not (path / "metrics.json").exists()
    run_rewinding.main(halving)
    assert_halved("killed")


def test_commands_that_share_a_halved_sweep_wait_for_each_other(teacher, capsys):
    everything = list(map(str, SPARSITIES))
    parts = ["0"], ["50", "90"]
    commands = [[*FLAGS, *part, "--halving", *everything, "--output_dir", "spread/rewind"] for part in parts]
    run_rewinding.main(commands[0])
    assert "paused after update 2, which ckpt_50 ckpt_90 must reach, too" in capsys.readouterr().out
    assert not list(Path("spread", FOLDER).glob("ckpt*"))
    for _ in range(3):
        for command in commands:
            run_rewinding.main(command)
    assert_halved("spread")


def test_a_student_that_another_command_finishes_meanwhile_has_its_history(tmp_path, monkeypatch):
    folder, settings = RunFolder(tmp_path), {"seed": 1, "inputs": {}}
    state = folder.beside("ckpt_0", "state")
    is_file = Path.is_file

    def finished_meanwhile(path: Path) -> bool:
        """Path.is_file, before which the checkpoint is renamed into place and then its state removed."""
        if path == state and state.exists():
            (tmp_path / "made").rename(tmp_path / "ckpt_0")
            state.unlink()
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", finished_meanwhile)
    for look in (
        lambda: folder.history("ckpt_0", settings) == history(u10=0.5, u20=0.7),
        lambda: folder.has_reached("ckpt_0", 30, settings),
    ):
        (tmp_path / "made").mkdir()
        write_json(tmp_path / "made" / "args.json", settings)
        write_json(tmp_path / "made" / "metrics.json", {"history": history(u10=0.5, u20=0.7)})
        content = {"progress": {"history": history(u10=0.5)}}
        StateFile(state, run_id=run_id(settings)).save(content, torch.device("cpu"))
        assert look()
        assert not state.exists()
        shutil.rmtree(tmp_path / "ckpt_0")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["0", "--halving_rungs", "0.5"], "--halving_rungs: found without --halving"),
        (["0", "--halving", "--halving_rungs", "1.5"], "--halving_rungs: found '1.5'"),
        (["0", "--halving", "--halving_rungs", "0.5", "0"], "--halving_rungs: found 0.0, expected shares above 0 and"),
        (["0", "--halving", "--halving_rungs", "1"], "--halving_rungs: found 1.0, expected shares above 0 and below 1"),
        (["0", "--halving", "0", "100"], "--halving: found '100', expected an integer from 0 to 99"),
        (["20", "--halving", "0", "10"], "--teacher_sparsity: found 20, expected one of --halving"),
    ],
)
def test_flags_of_halving_that_cannot_work_are_refused(workplace, capsys, flags, line):
    assert line in refused(run_rewinding, capsys, *FLAGS, *flags)


def test_a_part_of_a_competition_says_which_part_it_is(workplace, capsys):
    line = "--halving: found teacher sparsities, expected those of this command in --teacher_sparsity, too"
    assert line in refused(run_rewinding, capsys, *FLAGS[:-1], "--halving", "0", "10")


def test_ten_students_spend_42_percent_of_the_updates():
    total, remaining, spent = 1800, 10, 0
    before = 0
    for rung in rung_updates(RUNGS, total, interval=10):
        spent += remaining * (rung - before)
        before, remaining = rung, math.ceil(remaining / 2)
    assert spent / (10 * total) == pytest.approx(5 / 12)


def test_a_replay_says_how_often_halving_keeps_the_best_and_what_it_costs(in_tmp_path, capsys):
    """Two sweeps of three students, of 8 updates: the best is kept in one, and 0.2 behind in the other."""
    values = {  # accuracies at updates 2, 4, 6, 8
        "first": {0: [0.5, 0.6, 0.6, 0.6], 10: [0.6, 0.7, 0.7, 0.8], 20: [0.1, 0.2, 0.3, 0.4]},
        "second": {0: [0.5, 0.5, 0.5, 0.7], 10: [0.4, 0.4, 0.6, 0.5], 20: [0.3, 0.6, 0.7, 0.9]},
    }
    for run, students in values.items():
        for sparsity, accuracies in students.items():
            folder = Path("outputs", run, checkpoint_name(sparsity))
            folder.mkdir(parents=True)
            evaluations = [{"update": 2 * i + 2, "epoch": i + 1, "acc": acc} for i, acc in enumerate(accuracies)]
            (folder / "metrics.json").write_text(json.dumps({"history": evaluations, "dev": {"acc": max(accuracies)}}))
            settings = {"task_name": "rte", "selection_metric": "acc", "lam": 0.5, "seed": 1, "student_layer": 2}
            settings["num_train_epochs"] = 4
            (folder / "args.json").write_text(json.dumps({**settings, "model_type": "kd"}))
    replay_halving.main(["outputs", "--rungs", "0.25", "0.5"])
    header, *rows = (line.split("  ") for line in capsys.readouterr().out.splitlines())
    best_so_far = [cell.strip() for cell in rows[0] if cell.strip()]
    # at update 2 of three students two stay, at 4 one; random ones are 20 and 16.67 behind, dense ones 20 and 20
    # updates: 8 + 4 + 2 of 24
    assert best_so_far == ["rte", "0.25 0.5", "best so far", "1 of 2", "10.00", "18.33", "20.00", "58 %"]
    # of two tasks there is a line for both together
    settings = Path("outputs/second", checkpoint_name(20), "args.json")
    for path in settings.parent.parent.glob("*/args.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "task_name": "mrpc", "selection_metric": "acc"}))
    replay_halving.main(["outputs", "--rungs", "0.25", "0.5"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "best so far" in line]
    assert [(line[0], line[6:9]) for line in lines] == [
        ("mrpc", ["0", "of", "1"]),
        ("rte", ["1", "of", "1"]),
        ("all", ["1", "of", "2"]),
    ]
    # rungs are shares of the schedule, which patience may end early; a sweep in training is not full
    (settings.parent.parent / ".ckpt_30.state").touch()
    for path in Path("outputs/first").glob("*/args.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "num_train_epochs": 8}))
    replay_halving.main(["outputs", "--rungs", "0.25", "0.5"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "best so far" in line]
    # at update 4 two stay, at 8 one, all of which have ended there: 8 + 8 + 4 of 24
    assert [(line[0], line[6:9], line[-2]) for line in lines] == [("rte", ["1", "of", "1"], "83")]
    for sparsity in (10, 20):
        shutil.rmtree(Path("outputs", "first", checkpoint_name(sparsity)))
    assert "outputs/first: no rewinds at several" in refused(replay_halving, capsys, "outputs/first")
