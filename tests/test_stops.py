"""The checks of scripts/chaos.py on a run that was stopped: each of them raises a fault."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from conftest import small_config, write_task, write_vocabulary
from test_resume import SAVING

import run_distillation
from models.bert import PrunableBert
from scripts import stops
from scripts.stops import Command, Fault, Saved, Stop

RUN = Path("outputs/distil/layer_dropped/kd_2_rte")
CHECKPOINT = RUN / "ckpt"
KILL = signal.SIGKILL
PATHS = ["--teacher_model_path", "../teacher", "--student_model_path", "../teacher", "--student_layer", "2"]
COMMAND = Command(run_distillation, [*SAVING, *PATHS, "--do_test"])


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with a finished run in undisturbed/, and with its data and its teacher."""
    root = tmp_path_factory.mktemp("stops")
    torch.manual_seed(0)
    PrunableBert(small_config(id2label={0: "not_entailment", 1: "entailment"})).save_pretrained(root / "teacher")
    write_vocabulary(root / "teacher")
    write_task(root / "datasets", "rte")
    (root / "undisturbed").mkdir()
    stops.run(root / "undisturbed", COMMAND)
    return root


@pytest.fixture
def folders(root, tmp_path) -> tuple[Path, Path]:
    """Two folders with the same finished run: the undisturbed one, and one to be checked against it."""
    shutil.copytree(root / "undisturbed", tmp_path / "stopped")
    return root / "undisturbed", tmp_path / "stopped"


def change(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_undisturbed_run_passes_all_checks(folders):
    undisturbed, stopped = folders
    change(stopped / CHECKPOINT / "metrics.json", train_seconds=99)
    change(stopped / CHECKPOINT / "args.json", finished_at="at another time")
    metrics = stopped / RUN / "metrics.json"
    submission = json.loads(metrics.read_text())["submission"]
    change(metrics, submission={**submission, "result": stops.RunFolder(stopped / RUN).identity("ckpt")})
    stops.check_whole(stopped)
    stops.check_shown(stopped, stops.shown(undisturbed))
    at_stop = stops.saved(stopped, undisturbed, {})
    assert list(at_stop.weights) == [CHECKPOINT]
    stops.check_not_recomputed(stopped, at_stop)
    stops.check_end(stopped, undisturbed)


def test_a_truncated_file_is_a_fault(folders):
    for name in ("model.safetensors", "metrics.json"):
        path = folders[1] / CHECKPOINT / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(Fault, match=f"{name} is there and cannot be read"):
            stops.check_whole(folders[1])
        path.write_bytes(whole)


@pytest.mark.parametrize("args_of", [CHECKPOINT, RUN])
def test_numbers_under_another_seed_are_a_fault(folders, args_of):
    undisturbed, stopped = folders
    change(stopped / args_of / "args.json", seed=2)
    with pytest.raises(Fault, match="shows numbers of .* under seed 2 that are not its own"):
        stops.check_shown(stopped, stops.shown(undisturbed))


def test_other_numbers_are_a_fault(folders):
    undisturbed, stopped = folders
    change(stopped / CHECKPOINT / "metrics.json", dev={"acc": 0.123})
    with pytest.raises(Fault, match="under seed 776 that are not its own"):
        stops.check_shown(stopped, stops.shown(undisturbed))
    with pytest.raises(Fault, match=f"other results than undisturbed: {CHECKPOINT}/metrics.json"):
        stops.check_end(stopped, undisturbed)


def test_other_predictions_and_leftovers_are_a_fault(folders):
    undisturbed, stopped = folders
    predictions = stopped / RUN / "RTE.tsv"
    whole = predictions.read_text()
    predictions.write_text(whole + "99\tentailment\n")
    with pytest.raises(Fault, match=r"other results than undisturbed: .*RTE\.tsv"):
        stops.check_end(stopped, undisturbed)
    predictions.write_text(whole)
    for name in (".ckpt.lock", ".ckpt.old", "..ckpt.state.part"):
        (stopped / RUN / name).touch()
        with pytest.raises(Fault, match=f"left over: {RUN}/{name}"):
            stops.check_end(stopped, undisturbed)
        (stopped / RUN / name).unlink()
    change(stopped / CHECKPOINT / "metrics.json", train_seconds=99)  # made again, without its predictions
    with pytest.raises(Fault, match="is not of the checkpoint that metrics.json says"):
        stops.check_end(stopped, undisturbed)


def test_results_that_are_computed_again_are_a_fault(folders):
    undisturbed, stopped = folders
    at_stop = stops.saved(stopped, undisturbed, {})
    os.utime(stopped / CHECKPOINT / "model.safetensors")
    with pytest.raises(Fault, match="was finished, and was made again"):
        stops.check_not_recomputed(stopped, at_stop)
    log = RUN / "log.txt"
    with pytest.raises(Fault, match="saved after update 5, and did not go on from there"):
        stops.check_not_recomputed(stopped, Saved({}, {log: 5}, {log: 0}))


def test_a_process_stops_itself_at_the_planned_change_and_its_state_is_read(root):
    undisturbed = root / "undisturbed"
    # before them: args.json, the lock around it, the state after one update
    for stop, update in ((Stop(4, KILL), 1), (Stop(5, KILL), 2), (Stop(5, KILL, is_after=True), 3)):
        folder = root / f"stopped_{update}"
        folder.mkdir()
        process = stops.start(folder, COMMAND, stop)
        assert (process.wait(), process.changes.value) == (-KILL, stop.change)
        assert stops.saved(folder, undisturbed, {}).updates == {RUN / "log.txt": update}
    stops.run(folder, COMMAND)
    stops.check_end(folder, undisturbed)
