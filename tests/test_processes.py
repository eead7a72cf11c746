"""Two processes do what one does, to rounding, and only one of them writes."""

import contextlib
import copy
import itertools
import json
import os
import signal
import socket
from functools import partial
from multiprocessing import Process
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import forked, refused, small_config, wait_until, write_task
from test_training import QUICK, make_examples
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import run_finetuning
import run_pruning
from models.bert import PrunableBert
from models.layer_losses import IntermediateLoss
from models.losses import NO_LABEL, distillation_loss, student_loss, weigh_unlabelled
from utils import processes
from utils.evaluation import evaluate, predict, scheduled_logits_fn, teacher_logits_fn
from utils.resume import StateFile
from utils.training import fit

FLAGS = ["--num_train_epochs", "2", "--learning_rate", "1e-3", "--log_interval", "4", "--use_cpu"]
BATCHES = [(8, 1), (4, 2)]  # of one process: examples, and how many batches make an update
ROWS = (1, 2, 21, 33)

# what a user has set for other programs changes nothing here
FOREIGN = {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_USE_FSDP": "true", "OMPI_COMM_WORLD_SIZE": "3"}


def as_rank(rank: int, port: int, target: Any, *arguments: Any) -> None:
    """Call a function with the environment variables that torchrun sets for one of two processes."""
    addresses = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", **addresses, **FOREIGN}
    target(*arguments)


def on_two(target: Any, *arguments: Any) -> list[Process]:
    """Two processes that call a function, as torchrun starts them, but with all packages imported already."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [forked(as_rank, rank, port, target, *arguments) for rank in (0, 1)]


def results(tokenizer) -> dict:
    """Histories of training without dropout at each batch size, and logits of small sets.

    Of a student that is compared with its teacher in their layers, and of one with two teachers in turn.
    """
    torch.manual_seed(0)
    model = PrunableBert(small_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    model.cls[2].p = 0.0
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train, dev = make_examples(tokenizer, 37), make_examples(tokenizer, 21)
    train.labels[25:] = NO_LABEL  # of these 12, 8 in an epoch; its 33 rows leave an update of one example
    teacher = copy.deepcopy(model)
    torch.manual_seed(1)
    teachers = [teacher_logits_fn(each, train, 8) for each in (teacher, PrunableBert(small_config()))]
    on_logits = partial(distillation_loss, temperature=2.0, alpha=0.5)
    histories = []
    for (batch_size, accumulated), is_scheduled in itertools.product(BATCHES, (False, True)):
        model.load_state_dict(initial)
        recipe = QUICK._replace(batch_size=batch_size // processes.world_size(), num_grad_accum_steps=accumulated)
        recipe = recipe._replace(unlabelled_per_epoch=8)
        between_layers = IntermediateLoss(model, teacher, {"tinybert": 1.0}, on_logits)
        in_turn = student_loss(scheduled_logits_fn(teachers, total=10))
        with contextlib.nullcontext(in_turn) if is_scheduled else between_layers as loss_fn:
            result = fit(
                model,
                train,
                weigh_unlabelled(loss_fn, 0.5),
                recipe,
                eval_fn=lambda: evaluate(model, dev, "acc", 8),
                selection_metric="acc",
            )
        histories.append(result.history)
    logits = [predict(model, make_examples(tokenizer, rows), 8).tolist() for rows in ROWS]
    return {"histories": histories, "logits": logits}


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def write_results(tokenizer, target: Path) -> None:
    """Write what each process has found, then run a stage that is not for several, and leave no thread of the group."""
    processes.start(use_cpu=True)
    rank = processes.rank()
    before = threads()
    collectives = {
        "broadcast": processes.broadcast(rank),
        "sum": processes.all_reduce_sum(torch.tensor(rank + 1)).item(),
    }
    by_rank = processes.all_gather({**results(tokenizer), **collectives})
    if processes.is_main():
        target.write_text(json.dumps(by_rank))
    try:
        run_pruning.main(["--model_path", "bert"])
    finally:
        assert threads() <= before  # one that is left may abort the process when Python ends


def test_two_processes_train_and_predict_like_one(in_tmp_path, bert_folder, tokenizer, capfd):
    write_task(Path("datasets"), "rte")
    started = on_two(write_results, tokenizer, Path("found.json"))
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [2, 2]
    assert "runs on one process, found 2: no torchrun" in capfd.readouterr().err
    found = json.loads(Path("found.json").read_text())
    wanted = results(tokenizer)
    assert found[0] == found[1]  # both know all of it
    assert (found[0]["broadcast"], found[0]["sum"]) == (0, 3)
    for ours, alone in zip(found[0]["logits"], wanted["logits"], strict=True):
        torch.testing.assert_close(torch.tensor(ours), torch.tensor(alone), atol=1e-4, rtol=0)
    for ours, alone in zip(found[0]["histories"], wanted["histories"], strict=True):
        assert len(ours) == len(alone) == 4
        for entry, other in zip(ours, alone, strict=True):
            assert entry == pytest.approx(other, abs=1e-5)


def torchrun(main: Any, flags: list[str]) -> None:
    """Start two processes of a stage as torchrun does, which forks where the command would import all packages anew."""
    os.environ |= FOREIGN
    rendezvous = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": "test"}  # of --standalone
    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=2, start_method="fork", **rendezvous)
    elastic_launch(config, main)(flags)


def test_a_stage_that_torchrun_starts_writes_once_and_counts_every_row(in_tmp_path, capsys, bert_folder):
    write_task(Path("datasets"), "rte")  # 21 rows of dev and 9 of test: neither can be halved
    process = forked(torchrun, run_finetuning.main, ["--model_path", "bert", "--do_test", *FLAGS])
    process.join()
    assert process.exitcode == 0
    folder = Path("outputs/finetune/ft_rte")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["updates"] == 4  # 50 rows, 2 processes x 16
    assert metrics["dev"]["acc"] * 21 == pytest.approx(round(metrics["dev"]["acc"] * 21))
    assert len((folder / "RTE.tsv").read_text().splitlines()) == 10
    assert (folder / "log.txt").read_text().count("done in") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["RTE.tsv", "args.json", "ckpt", "log.txt", "metrics.json"]
    line = refused(run_finetuning, capsys, "--model_path", "bert", *FLAGS)
    assert "holds a run with other arguments: processes 2, now 1; --overwrite starts afresh" in line


def test_what_other_launchers_leave_beside_a_plain_run_is_named_and_ignored(monkeypatch, caplog):
    left = {"WORLD_SIZE": "2", "PMI_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
    for name, value in {**FOREIGN, **left}.items():
        monkeypatch.setenv(name, value)
    assert (processes.start(True), processes.world_size(), processes.rank()) == (torch.device("cpu"), 1, 0)
    assert [record.getMessage() for record in caplog.records] == [
        "WORLD_SIZE=2 OMPI_COMM_WORLD_SIZE=3 PMI_SIZE=2 ignored: torchrun alone starts several processes"
    ]


def test_a_single_process_of_torchrun_joins_no_group(monkeypatch):
    single = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "1"}
    for name, value in single.items():
        monkeypatch.setenv(name, value)
    assert (processes.start(use_cpu=True), processes.world_size()) == (torch.device("cpu"), 1)
    assert not torch.distributed.is_initialized()


def test_several_processes_leave_at_once_with_one_line(in_tmp_path, bert_folder, capfd):
    write_task(Path("datasets"), "rte")
    flags = ["--num_train_epochs", "5000", "--num_patience_epochs", "0", "--save_interval", "1", *FLAGS[2:]]
    started = on_two(run_finetuning.main, ["--model_path", "bert", *flags])
    folder = Path("outputs/finetune/ft_rte")
    wait_until((folder / ".ckpt.state").exists)
    for process in started:  # torchrun passes on what it gets
        os.kill(process.pid, signal.SIGTERM)
    for process in started:
        process.join(60)
    assert 143 in [process.exitcode for process in started]
    assert 0 not in [process.exitcode for process in started]
    assert capfd.readouterr().err.count("stopped by SIGTERM") == 1
    assert (folder / "log.txt").read_text().endswith("stopped by SIGTERM\n")
    assert StateFile.run_id_of(folder / ".ckpt.state") is not None  # whole
