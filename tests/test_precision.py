"""Compiled code and half precision: results are equal, or differ by rounding only."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import small_config
from safetensors.torch import load_file
from torch import nn

import run_pruning
import run_rewinding
import run_sparsification
from models.bert import PrunableBert
from models.dropout import Dropout
from models.losses import task_loss, teacher_loss
from models.scores import mask_gradients
from utils.batches import tokenise
from utils.cache import load_examples
from utils.evaluation import predict
from utils.readers import Split
from utils.tokenizer import load_tokenizer

TAB = "\t"
pytestmark = pytest.mark.compiles
QUICK = ["--num_train_epochs", "1", "--log_interval", "4", "--use_cpu"]


@pytest.fixture
def compiled_calls(monkeypatch) -> Iterator[list]:
    """One entry for each call of a compiled graph, by a backend that takes no time to compile one."""
    calls = []
    compile_module = nn.Module.compile

    def backend(graph: torch.fx.GraphModule, inputs: list):
        def call(*tensors):
            calls.append(graph)
            return graph.forward(*tensors)

        return call

    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compile_module(self, backend=backend, **options))
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    # fewer models than two sparsities need, until the limit is raised
    with torch._dynamo.config.patch(recompile_limit=4, fail_on_recompile_limit_hit=True):
        yield calls
    torch.compiler.reset()


def result(folder: str) -> dict:
    return json.loads(Path(folder, "metrics.json").read_text())


def test_students_of_all_sparsities_are_compiled_and_learn_the_same(workplace, compiled_calls):
    torch.manual_seed(0)  # the classifier's dropout is torch's own, compiled or not; the others draw other numbers
    names = {0: "not_entailment", 1: "entailment"}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = small_config(num_hidden_layers=2, id2label=names, **no_dropout)
    PrunableBert(config).save_pretrained("teacher")
    run_pruning.main(["--model_path", "teacher"])
    paths = ["--teacher_model_path", "outputs/prune/ft_rte/ckpt", "--student_model_path", "teacher"]
    flags = [*QUICK, *paths, "--student_layer", "1"]
    sweep, in_turn = ["--teacher_sparsity", "0", "90"], ["--teacher_schedule", "90", "0"]
    for teachers in (sweep, in_turn):
        run_rewinding.main([*flags, *teachers, "--output_dir", "eager"])
    assert not compiled_calls
    run_rewinding.main([*flags, *sweep, "--output_dir", "compiled", "--compile", "--no_teacher_cache"])
    assert len(compiled_calls) == 2 * (4 + 4 + 2)  # for each: 4 updates, as often the teacher, 2 evaluations of a batch
    assert not torch._dynamo.utils.counters["graph_break"]
    eager, compiled = (result(f"{way}/layer_dropped/kd_1_rte_0.5")["sparsity"] for way in ("eager", "compiled"))
    for sparsity, row in eager.items():
        for ours, other in zip(compiled[sparsity]["history"], row["history"], strict=True):
            assert ours == pytest.approx(other, abs=1e-4)
    run_rewinding.main([*flags, *in_turn, "--output_dir", "compiled", "--compile"])
    ours, other = (result(f"{way}/layer_dropped/kd_1_rte_0.5_schedule_90_0") for way in ("compiled", "eager"))
    assert ours["history"] == [pytest.approx(entry, abs=1e-4) for entry in other["history"]]


def test_compiled_dropout_is_one_graph():
    torch.manual_seed(0)
    dropout = torch.compile(Dropout(0.1).train(), backend="eager", fullgraph=True)
    assert (dropout(torch.ones(501, 999)) == 0).float().mean().item() == pytest.approx(0.1, abs=2e-3)


def test_a_compiled_model_is_scored_for_several_losses(tokenizer):
    torch.manual_seed(0)
    examples = tokenise(Split([f"w{n} w{2 * n}" for n in range(9)], None, [n % 2 for n in range(9)]), tokenizer, 20)
    model = PrunableBert(small_config())
    losses = [task_loss, teacher_loss(torch.randn(9, 2))]
    eager = mask_gradients(model, examples.eval_batches(4), losses)
    model.compile(backend="aot_eager", dynamic=True)  # as the default does, its backward pass frees what it has read
    for ours, other in zip(mask_gradients(model, examples.eval_batches(4), losses), eager, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-6, rtol=1e-4)


@pytest.fixture
def well_fitted(workplace) -> None:
    """The teacher is right on all of dev and sure of it: losses of 1e-5 and less."""
    teacher = PrunableBert.from_pretrained("teacher")
    dev = load_examples("rte", "datasets", "dev", load_tokenizer("teacher"), 40)
    logits = predict(teacher, dev, 32)
    for parameter in teacher.cls[3].parameters():
        parameter.data *= 12 / logits.diff().abs().min()
    teacher.save_pretrained("teacher")
    path = Path("datasets/rte/dev.tsv")
    header, *rows = path.read_text().splitlines()
    names = [("not_entailment", "entailment")[label] for label in logits.argmax(1)]
    labelled = [f"{row.rpartition(TAB)[0]}{TAB}{name}" for row, name in zip(rows, names, strict=True)]
    path.write_text("\n".join([header, *labelled]) + "\n")


SCORING = {
    "prune/ft_rte": (run_pruning, ["--model_path", "teacher"], "task_loss_per_dev_batch"),
    "stark/layer_dropped/kd_2_rte_0.5": (
        run_sparsification,
        ["--teacher_model_path", "teacher", "--student_model_path", "teacher", "--student_layer", "2"],
        "distillation_loss_per_dev_batch",
    ),
}


@pytest.mark.parametrize("folder", SCORING)
@pytest.mark.parametrize("flag", ["--use_fp16", "--use_bf16"])
def test_half_precision_changes_no_score(well_fitted, folder, flag, capsys):
    script, flags, name = SCORING[folder]
    folder = folder.partition("/")[2]
    script.main([*flags, "--output_dir", "float32"])
    assert "float32, not compiled" not in capsys.readouterr().out
    script.main([*flags, "--output_dir", "half", flag])
    scores, halves = (load_file(f"{way}/{folder}/ckpt/scores.safetensors") for way in ("float32", "half"))
    for kind, score in scores.items():
        assert (halves[kind] - score).abs().max() <= 0.02 * score.abs().max()
    assert result(f"half/{folder}")[name] == pytest.approx(result(f"float32/{folder}")[name], rel=0.02)
    assert capsys.readouterr().out.count("float32, not compiled") == 1
