"""What scripts/chaos.py holds against a run that was stopped: each of its checks notices what it is there for."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from conftest import small_config, write_task, write_vocabulary
from test_resume import FLAGS

import run_distillation
from models.bert import PrunableBert
from scripts import stops
from scripts.stops import Command, Fault, Saved, Stop

RUN = Path("outputs/distil/layer_dropped/kd_2_rte")
CHECKPOINT = RUN / "ckpt"
KILL = signal.SIGKILL
PATHS = ["--teacher_model_path", "../teacher", "--student_model_path", "../teacher", "--student_layer", "2"]
COMMAND = Command(run_distillation, [*FLAGS, *PATHS, "--do_test"])


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a run in undisturbed/, and what it read."""
    place = tmp_path_factory.mktemp("stops")
    torch.manual_seed(0)
    PrunableBert(small_config(id2label={0: "not_entailment", 1: "entailment"})).save_pretrained(place / "teacher")
    write_vocabulary(place / "teacher")
    write_task(place / "datasets", "rte")
    (place / "undisturbed").mkdir()
    stops.run(place / "undisturbed", COMMAND)
    return place


@pytest.fixture
def folders(place, tmp_path) -> tuple[Path, Path]:
    """Two folders with the same finished run: one was never stopped, the other is to be looked at."""
    shutil.copytree(place / "undisturbed", tmp_path / "found")
    return place / "undisturbed", tmp_path / "found"


def change(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_nothing_is_held_against_a_run_that_is_as_it_was(folders):
    undisturbed, found = folders
    change(found / CHECKPOINT / "metrics.json", train_seconds=99)
    metrics = found / RUN / "metrics.json"
    submission = json.loads(metrics.read_text())["submission"]
    change(metrics, submission={**submission, "result": stops.RunFolder(found / RUN).identity("ckpt")})
    stops.check_whole(found)
    stops.check_shown(found, stops.shown(undisturbed))
    at_stop = stops.saved(found, undisturbed, {})
    assert list(at_stop.weights) == [CHECKPOINT]
    stops.check_not_recomputed(found, at_stop)
    stops.check_end(found, undisturbed)


def test_half_a_file_is_noticed(folders):
    for name in ("model.safetensors", "metrics.json"):
        path = folders[1] / CHECKPOINT / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(Fault, match=f"{name} is there and cannot be read"):
            stops.check_whole(folders[1])
        path.write_bytes(whole)


@pytest.mark.parametrize("args_of", [CHECKPOINT, RUN])
def test_numbers_under_another_seed_are_noticed(folders, args_of):
    undisturbed, found = folders
    change(found / args_of / "args.json", seed=2)
    with pytest.raises(Fault, match="shows numbers of .* under seed 2 that are not its own"):
        stops.check_shown(found, stops.shown(undisturbed))


def test_other_numbers_are_noticed(folders):
    undisturbed, found = folders
    change(found / CHECKPOINT / "metrics.json", dev={"acc": 0.123})
    with pytest.raises(Fault, match="under seed 776 that are not its own"):
        stops.check_shown(found, stops.shown(undisturbed))
    with pytest.raises(Fault, match=f"other results than undisturbed: {CHECKPOINT}/metrics.json"):
        stops.check_end(found, undisturbed)


def test_other_predictions_and_leftovers_are_noticed(folders):
    undisturbed, found = folders
    predictions = found / RUN / "RTE.tsv"
    whole = predictions.read_text()
    predictions.write_text(whole + "99\tentailment\n")
    with pytest.raises(Fault, match=r"other results than undisturbed: .*RTE\.tsv"):
        stops.check_end(found, undisturbed)
    predictions.write_text(whole)
    for name in (".ckpt.lock", ".ckpt.old", "..ckpt.state.part"):
        (found / RUN / name).touch()
        with pytest.raises(Fault, match=f"left over: {RUN}/{name}"):
            stops.check_end(found, undisturbed)
        (found / RUN / name).unlink()
    change(found / CHECKPOINT / "metrics.json", train_seconds=99)  # made again, without its predictions
    with pytest.raises(Fault, match="is not of the checkpoint that metrics.json says"):
        stops.check_end(found, undisturbed)


def test_work_that_is_done_again_is_noticed(folders):
    undisturbed, found = folders
    at_stop = stops.saved(found, undisturbed, {})
    os.utime(found / CHECKPOINT / "model.safetensors")
    with pytest.raises(Fault, match="was finished, and was made again"):
        stops.check_not_recomputed(found, at_stop)
    log = RUN / "log.txt"
    with pytest.raises(Fault, match="saved after update 5, and did not go on from there"):
        stops.check_not_recomputed(found, Saved({}, {log: 5}, {log: 0}))


def test_a_process_stops_itself_where_it_is_told_and_its_state_is_seen(place):
    undisturbed = place / "undisturbed"
    # before them: args.json, the lock around it, the state after one update
    for stop, update in ((Stop(4, KILL), 1), (Stop(5, KILL), 2), (Stop(5, KILL, is_after=True), 3)):
        stopped = place / f"stopped_{update}"
        stopped.mkdir()
        process = stops.start(stopped, COMMAND, stop)
        assert (process.wait(), process.changes.value) == (-KILL, stop.change)
        assert stops.saved(stopped, undisturbed, {}).updates == {RUN / "log.txt": update}
    stops.run(stopped, COMMAND)
    stops.check_end(stopped, undisturbed)
