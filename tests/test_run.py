"""Output folders are written completely or not at all."""

import argparse
import json
import multiprocessing
import time

import pytest
import torch
from conftest import small_config

from models.bert import PrunableBert
from utils.entry import entry_point
from utils.errors import InputError
from utils.files import lock, read_json, release, write_json
from utils.resume import StateFile
from utils.run import Run
from utils.settings import run_id
from utils.tables import table


def make_run(folder, *names: str, **changes) -> Run:
    flags = {"seed": 1, "use_cpu": True, "compile": False, "no_exact_shortcuts": False, "overwrite": False}
    paths = {"data_dir": "nowhere", "output_dir": str(folder)}
    args = {"stage": "finetuning", "task_name": "rte", "selection_split": "dev", **paths, **flags, **changes}
    flags = {"use_fp16": False, "use_bf16": False}
    run = Run(argparse.Namespace(**flags, **args), folder)
    run.names = list(names) or ["ckpt"]
    run.start()
    return run


class Breaks:
    def save_pretrained(self, folder):
        (folder / "half").write_text("half a file")
        raise OSError("disk full")


def test_a_failed_save_leaves_the_earlier_checkpoint_as_it_was(tmp_path):
    run = make_run(tmp_path / "out")
    model = PrunableBert(small_config())
    run.save("ckpt", model, result={})
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "ckpt").iterdir()}
    with pytest.raises(OSError, match="disk full"):
        run.save("ckpt", model, Breaks(), result={})
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "ckpt").iterdir()} == before
    run.save("ckpt", model, result={})
    release()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["args.json", "ckpt", "log.txt"]


def test_a_save_replaces_what_was_there(tmp_path):
    run = make_run(tmp_path)
    run.save("ckpt", PrunableBert(small_config()), result={}, write=lambda folder: (folder / "extra").write_text("1"))
    run.save("ckpt", PrunableBert(small_config(num_hidden_layers=1)), result={})
    assert not (tmp_path / "ckpt" / "extra").exists()
    assert len(PrunableBert.from_pretrained(tmp_path / "ckpt").layers) == 1


def test_checkpoints_that_are_being_overwritten_do_not_count_until_they_are_made_again(tmp_path):
    names = ("ckpt_0", "ckpt_30")
    model = PrunableBert(small_config())
    run = make_run(tmp_path, *names)
    for name in names:
        run.save(name, model, result={"made": "before"})
    release()
    run = make_run(tmp_path, *names, overwrite=True, seed=2)
    run.save("ckpt_30", model, result={"made": "again"})
    release()
    run = make_run(tmp_path, *names, seed=2)  # the one before was stopped here
    assert run.folder.result("ckpt_0") == {}
    assert run.folder.result("ckpt_30")["made"] == "again"
    assert list(run.results()) == ["ckpt_30"]
    assert (tmp_path / "ckpt_0").is_dir()  # until it is replaced
    release()


def test_results_without_the_arguments_that_made_them_are_not_taken_for_this_runs(tmp_path):
    run = make_run(tmp_path, "ckpt")
    run.save("ckpt", PrunableBert(small_config()), result={})
    run.finish({}, ("",), [])
    assert run.is_finished()
    (tmp_path / "args.json").unlink()  # which is derived
    assert run.is_finished()
    (tmp_path / "ckpt" / "args.json").unlink()
    assert not run.is_finished()
    release()


def test_parts_of_a_sweep_that_begin_at_once_wait_for_each_other(tmp_path):
    def hold(held):
        lock(tmp_path / ".shared.lock")
        held.set()
        time.sleep(0.3)

    held = multiprocessing.get_context("fork").Event()
    other = multiprocessing.get_context("fork").Process(target=hold, args=(held,))
    other.start()
    assert held.wait(60)
    make_run(tmp_path, "ckpt_0")
    other.join()
    assert read_json(tmp_path / "args.json")["seed"] == 1
    release()


def test_json_files_are_read_back_and_missing_ones_are_empty(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, None]})
    assert read_json(tmp_path / "a.json") == {"x": [1, None]}
    assert read_json(tmp_path / "b.json") == {}
    (tmp_path / "c.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"c\.json: not a JSON file: maximum recursion depth"):
        read_json(tmp_path / "c.json")


def test_args_json_holds_flags_and_versions(tmp_path):
    make_run(tmp_path)
    content = json.loads((tmp_path / "args.json").read_text())
    assert content["seed"] == 1
    assert {"python_version", "torch_version", "transformers_version", "git_commit", "hardware"} <= set(content)
    assert content["cpu_threads"] == 1


def test_training_that_goes_on_on_another_kind_of_machine_says_so(tmp_path, capsys):
    run = make_run(tmp_path)
    StateFile(tmp_path / ".ckpt.state", run_id=run_id(run.settings)).save({"update": 1}, torch.device("cpu"))
    release()
    make_run(tmp_path)
    release()
    assert "another kind of machine" not in capsys.readouterr().out
    settings = json.loads((tmp_path / "args.json").read_text())
    (tmp_path / "args.json").write_text(json.dumps({**settings, "cpu_capability": "AVX9", "cpu_threads": 7}))
    make_run(tmp_path)
    release()
    changes = f"cpu_capability AVX9, now {settings['cpu_capability']}; cpu_threads 7, now 1"
    line = f"begun on another kind of machine, results may differ in rounding: {changes}\n"
    assert line in capsys.readouterr().out
    assert line in (tmp_path / "log.txt").read_text()
    assert json.loads((tmp_path / "args.json").read_text()) == settings


def test_tables_align_and_mark_what_is_missing():
    assert table(("s", "acc"), [(0, 0.5), (10, None)]) == " s     acc\n 0  0.5000\n10       -"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("rte/dev.tsv line 3: bad"), 2, "error: rte/dev.tsv line 3: bad"),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device"),
        (FloatingPointError("logits that are not numbers\nand more"), 1, "error: logits that are not numbers"),
        (MemoryError(), 1, "error: MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), 1, "error: CUDA out of memory. Tried"),
        (torch.AcceleratorError("CUDA error: out of memory\n..."), 1, "error: CUDA error: out of memory"),
        (RuntimeError("CUDA out of memory"), 1, "error: CUDA out of memory"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when"), 1, "error: CUBLAS_STATUS_ALLOC_FAILED when"),
        (RuntimeError("CUDNN_STATUS_ALLOC_FAILED"), 1, "error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_errors_are_one_line_and_a_status(capsys, error, status, line):
    @entry_point()
    def main(argv):
        raise error

    with pytest.raises(SystemExit) as stop:
        main([])
    assert (stop.value.code, capsys.readouterr().err) == (status, line + "\n")
    with pytest.raises(SystemExit):
        main(["--debug"])
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("bug", [KeyError("bug"), RuntimeError("shapes cannot be multiplied")])
def test_a_bug_keeps_its_traceback(bug):
    @entry_point()
    def main(argv):
        raise bug

    with pytest.raises(type(bug)):
        main([])
