"""Every flag of the five scripts changes what it should and nothing else, against a second implementation."""

import contextlib
import functools
import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import second
import torch
from conftest import small_config, write_task, write_vocabulary
from safetensors.torch import load_file
from scipy.stats import entropy, pearsonr, spearmanr
from test_features import losses_of
from transformers import BertModel

import run_distillation
import run_finetuning
import run_pruning
import run_rewinding
import run_sparsification
from models.bert import PrunableBert

SCRIPTS = {
    module.__name__[4:]: module
    for module in (run_finetuning, run_pruning, run_distillation, run_sparsification, run_rewinding)
}
TRAIN, DEV, TEST = 24, 40, 9  # rows; dev is two groups of 32 in scoring
BOTH = ["--teacher_model_path", "teacher", "--student_model_path", "teacher"]
STUDENT = ["--student_layer", "2"]
# one batch of all rows for each update, two updates of warm-up, and one evaluation: the last weights are kept
RECIPE = ["--num_train_epochs", "6", "--warmup_proportion", "0.34", "--learning_rate", "1e-3", "--log_interval", "6"]
DEFAULTS = {
    "finetuning": ["--model_path", "bert", *RECIPE, "--per_device_train_batch_size", "64"],
    "pruning": ["--model_path", "teacher"],
    "distillation": [*BOTH, *STUDENT, *RECIPE, "--per_device_train_batch_size", "64"],
    "sparsification": ["--teacher_model_path", "teacher", "--student_model_path", "other", *STUDENT],
    "rewinding": [*BOTH, *STUDENT, *RECIPE, "--per_device_train_batch_size", "64"],
}
NO_LEARNING = ["--learning_rate", "0"]
SCORER = ["--task_name", "stsb", "--teacher_model_path", "scorer", "--student_model_path", "scorer"]
# the rows of dev that select with --selection_split half: earlier results would leak if they ever changed
DEV_SELECT = [0, 6, 10, 13, 14, 16, 20, 21, 24, 26, 27, 28, 29, 30, 32, 33, 34, 35, 36, 38]
DEV_REPORT = sorted({*range(DEV)} - {*DEV_SELECT})
covered: set[str] = set()
ELSEWHERE = {
    "--help": "argparse's own",
    "--data_type": "has one choice",
    "--use_cpu": "there is nothing else on a machine without a GPU",
    **dict.fromkeys(("--unlabelled", "--unlabelled_weight", "--unlabelled_per_epoch"), "test_unlabelled has them"),
    **dict.fromkeys(("--halving", "--halving_rungs"), "test_halving has them"),
    "--compile": "test_precision compiles, which takes its time",
}


def covers(*flags: str) -> Callable:
    """A decorator that records which flags a test covers."""
    covered.update(flags)
    return lambda test: test


class Run(NamedTuple):
    """The outputs of a command."""

    folder: Path
    calls: list[tuple[str, bool, tuple[int, ...]]]  # of models and layer norms: name, training, shape of the input

    def read(self, name: str) -> dict:
        return json.loads((self.folder / name).read_text())

    @property
    def metrics(self) -> dict:
        return self.read("metrics.json")

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def weights(self, name: str = "ckpt") -> torch.Tensor:
        return second.weights_of(second.load(self.folder / name))

    @property
    def scores(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "ckpt" / "scores.safetensors")

    def shapes(self, training: bool) -> list[tuple[int, ...]]:
        """Rows and width of each batch that a model was called with."""
        return [shape for name, mode, shape in self.calls if (name, mode) == ("PrunableBert", training)]


@contextlib.contextmanager
def watched(calls: list):
    """Record the calls of models and layer norms while in this context."""

    def note(module, inputs):
        if type(module).__name__ in ("PrunableBert", "LayerNorm"):
            calls.append((type(module).__name__, module.training, tuple(inputs[0].shape)))

    handle = torch.nn.modules.module.register_module_forward_pre_hook(note)
    yield
    handle.remove()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function that runs a stage with its defaults and these flags, cached by them: run("pruning", ...)."""
    count = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("inputs"))
        patch.setattr(torch.nn.functional, "dropout", lambda hidden, *_: hidden)  # of the classifier
        write_inputs()

        @functools.cache
        def run(stage: str, *flags: str) -> Run:
            result = Run(Path(f"out{next(count)}"), [])
            with watched(result.calls):
                SCRIPTS[stage].main([*DEFAULTS[stage], "--output_dir", str(result.folder), *flags])
            [folder] = {path.parent for path in result.folder.rglob("log.txt")}
            return result._replace(folder=folder)

        yield run


def write_inputs() -> None:
    """Write variants of the tasks, and models without dropout whose predictions differ between rows."""
    for folder, task in (("datasets", "rte"), ("datasets", "stsb"), ("flipped", "rte"), ("same", "rte")):
        write_task(Path(folder), task, (TRAIN, DEV, TEST))
    flipped, same = Path("flipped/rte/train.tsv"), Path("same/rte/train.tsv")
    flipped.write_text(
        flipped.read_text().replace("\tnot_", "\tis_").replace("\tent", "\tnot_ent").replace("\tis_", "\t")
    )
    same.write_text("\n".join(same.read_text().splitlines()[i] for i in [0] + [1] * TRAIN) + "\n")
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    for seed, (name, names) in enumerate(
        {"teacher": second.CLASSES, "other": second.CLASSES, "scorer": ["score"]}.items()
    ):
        torch.manual_seed(seed)
        model = PrunableBert(small_config(id2label=dict(enumerate(names)), **no_dropout))
        model.save_pretrained(name)
        write_vocabulary(Path(name))
        with torch.no_grad():
            model.cls[3].bias -= second.logits_of(second.load(Path(name)), rows("dev")).median(0).values
        model.save_pretrained(name)
    BertModel(small_config(**no_dropout)).save_pretrained("bert")
    write_vocabulary(Path("bert"))


@functools.cache
def rows(split: str, folder: str = "datasets", task: str = "rte", max_length: int = 40) -> second.Rows:
    return second.Rows(Path(folder, task, f"{split}.tsv"), Path("teacher"), max_length)


def model(name: str = "teacher", layers: tuple[int, ...] | None = None, sparsity: int = 0):
    return second.load(Path(name), layers, sparsity)


@functools.cache
def trained(
    start="teacher", layers=(0, 1), teacher="teacher", sparsity=0, data="datasets", task="rte", **recipe
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Mean loss, and all weights afterwards and before, by the second implementation."""
    recipe = {"updates": 6, "learning_rate": 1e-3, **recipe}
    train = rows("train", data, task, recipe.pop("max_length", 40))[: recipe.pop("first", None)]
    student = model(start, layers)
    target = second.logits_of(model(teacher, sparsity=sparsity), train).detach()
    shares = {name: recipe.pop(name) for name in ("temperature", "alpha") if name in recipe}
    loss = functools.partial(second.distillation_loss, teacher=target, labels=train.labels, **shares)
    if recipe.pop("loss", None) == "task":
        loss = functools.partial(second.task_loss, labels=train.labels)
    before = second.weights_of(student)
    mean = second.train(student, train, loss, **recipe)
    return mean, second.weights_of(student), before


TRAINING = [  # flags of stage 3, and the arguments of the second implementation that they correspond to
    ([], {}),
    (["--temperature", "5", "--alpha", "0.2"], {"temperature": 5.0, "alpha": 0.2}),
    (["--alpha", "1", "--data_dir", "flipped"], {"alpha": 1.0}),  # labels do not matter
    (["--alpha", "0", "--teacher_model_path", "other"], {"alpha": 0.0}),  # the teacher does not
    (["--teacher_model_path", "other", "--max_length", "6"], {"teacher": "other", "max_length": 6}),
    (["--student_model_path", "other", "--layer_choice", "last"], {"start": "other", "layers": (1, 2)}),
    (["--data_dir", "flipped", "--max_train_examples", "7"], {"data": "flipped", "first": 7}),
    (["--model_type", "ft", "--weight_decay", "2", "--learning_rate", "5e-4"],
     {"loss": "task", "weight_decay": 2.0, "learning_rate": 5e-4}),
    (["--task_name", "stsb", "--teacher_model_path", "scorer", "--student_model_path", "scorer", "--alpha", "0.3"],
     {"task": "stsb", "start": "scorer", "teacher": "scorer", "alpha": 0.3}),
    (["--num_train_epochs", "4", "--warmup_proportion", "0.5"], {"updates": 4}),
    (["--warmup_proportion", "0"], {"warmup": 0}),
    (["--max_grad_norm", "1e-4", "--lr_scheduler_type", "cosine"], {"max_grad_norm": 1e-4, "scheduler": "cosine"}),
    (["--lr_scheduler_type", "cosine_with_restarts", "--layer_choice", "spaced"],
     {"scheduler": "cosine_with_restarts", "layers": (0, 2)}),
    (["--lr_scheduler_type", "constant", "--layer_choice", "0,2"], {"scheduler": "constant", "layers": (0, 2)}),
    (["--lr_scheduler_type", "constant_with_warmup", "--student_layer", "1"],
     {"scheduler": "constant_with_warmup", "layers": (0,)}),
    # all rows are the same, so that it does not matter which are in an update: 10, 10 and 4 of them, twice
    (["--data_dir", "same", "--per_device_train_batch_size", "5", "--num_grad_accum_steps", "2"]
     + ["--num_train_epochs", "2"], {"data": "same"}),
]  # fmt: skip
WITHOUT_EFFECT = [  # flags that change no more than rounding
    # the norms are below 5, and the polynomial schedule ends at 1e-7
    ["--max_grad_norm", "0", "--lr_scheduler_type", "polynomial", "--seed", "3", "--save_interval", "2"]
    + ["--pkd_weight", "0", "--tinybert_weight", "0", "--minilm_weight", "0", "--do_distil"]
    + ["--num_patience_epochs", "0"],
    ["--per_device_train_batch_size", "5", "--num_grad_accum_steps", "5"],
    ["--per_device_eval_batch_size", "7"],
    ["--pad_to_max_length"],
    ["--no_group_by_length"],
    ["--no_exact_shortcuts"],
    ["--no_teacher_cache"],
    ["--pad_to_max_length", "--no_group_by_length", "--no_teacher_cache", "--no_exact_shortcuts"],
]
covered.update(
    flag for flags in [*(case[0] for case in TRAINING), *WITHOUT_EFFECT] for flag in flags if flag.startswith("--")
)


@pytest.mark.parametrize(("flags", "changes"), TRAINING, ids=lambda value: " ".join(value) if value else None)
def test_training_is_that_of_the_second_implementation(run, flags, changes):
    done = run("distillation", *flags)
    (loss, after, before) = trained(**changes)
    assert done.metrics["history"][-1]["loss"] == pytest.approx(loss, rel=1e-5)
    assert (done.weights() - after).norm() < 1e-3 * (after - before).norm()
    if changes:
        other_loss, other, _ = trained()
        # what the flag does is far more than that
        assert len(other) != len(after) or (other - after).norm() > 5e-3 * (after - before).norm()


@pytest.mark.parametrize("flags", WITHOUT_EFFECT, ids=" ".join)
def test_flags_that_change_only_how_it_is_computed_change_no_weight(run, flags):
    done = run("distillation", *flags)
    (loss, after, before) = trained()
    assert done.metrics["history"][-1]["loss"] == pytest.approx(loss, rel=1e-5)
    assert (done.weights() - after).norm() < 1e-3 * (after - before).norm()


def test_those_flags_do_change_how_it_is_computed(run):
    default = run("distillation")
    assert {shape[0] for shape in default.shapes(training=True)} == {TRAIN}
    uncached = run("distillation", "--no_teacher_cache")
    batch = default.shapes(training=True)[0]
    assert [done.shapes(training=False).count(batch) for done in (default, uncached)] == [1, 6]  # of the teacher
    parts = run("distillation", "--per_device_train_batch_size", "5", "--num_grad_accum_steps", "5")
    assert sorted(shape[0] for shape in parts.shapes(training=True)) == sorted([5, 5, 5, 5, 4] * 6)
    assert {shape[0] for shape in run("distillation", "--per_device_eval_batch_size", "7").shapes(False)} == {7, 5, 3}
    padded = run("distillation", "--pad_to_max_length")
    assert {shape[1] for shape in padded.shapes(True) + padded.shapes(False)} == {40}
    ungrouped = run("distillation", "--no_group_by_length")
    lengths = rows("dev").inputs["attention_mask"].sum(1)
    assert ungrouped.shapes(training=False)[:2] == [(32, lengths[:32].max()), (8, lengths[32:].max())]
    ordered = lengths.sort(descending=True).values
    assert default.shapes(training=False)[:2] == [(32, ordered[0]), (8, ordered[32])]
    # layer norms of the last layer see [CLS] alone
    for done, alone in ((default, True), (run("distillation", "--no_exact_shortcuts"), False)):
        assert any(name == "LayerNorm" and shape[1] == 1 for name, _, shape in done.calls) == alone


@covers("--use_bf16", "--use_fp16")
def test_half_precision_rounds_as_its_type_does(run):
    """bfloat16 keeps 8 bits of a number, float16 11."""
    exact = run("pruning").scores["neuron_expressive"]
    for flag in ("--use_bf16", "--use_fp16"):  # scores are float32's whatever the flags
        assert torch.equal(run("pruning", flag).scores["neuron_expressive"], exact)
    loss, after, before = trained()
    for flag, low, high in (("--use_bf16", 1e-2, 0.6), ("--use_fp16", 1e-3, 0.2)):
        done = run("distillation", flag)
        assert done.metrics["history"][-1]["loss"] == pytest.approx(loss, rel=1e-2)
        assert low < (done.weights() - after).norm() / (after - before).norm() < high
    exact = run("distillation", *SCORER, *NO_LEARNING).metrics
    for flag in ("--use_bf16", "--use_fp16"):
        rounded = run("distillation", *SCORER, *NO_LEARNING, flag).metrics
        for what in ("dev", "report", "teacher"):  # evaluations, too
            assert 1e-7 < abs(rounded[what]["pearson_corr"] - exact[what]["pearson_corr"]) < 2e-2


@covers("--seed", "--do_train", "--model_path")
def test_the_seed_draws_the_new_classifier_and_the_order_of_rows(run):
    first, again, other = (
        load_file(run("finetuning", *NO_LEARNING, "--seed", *flags).folder / "ckpt" / "model.safetensors")
        for flags in (["1"], ["1", "--do_train"], ["2"])
    )
    for name in ("cls.0.weight", "cls.3.weight"):
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])
        assert first[name].std() == pytest.approx(0.2, rel=0.25)  # the configuration's initializer_range
    start = load_file("bert/model.safetensors")
    for name in start.keys() - {"pooler.dense.weight", "pooler.dense.bias"}:
        assert torch.equal(first["bert." + name], other["bert." + name])
        assert torch.equal(first["bert." + name], start[name])
    small = ["--per_device_train_batch_size", "8", "--seed"]
    orders = [run("distillation", *small, *seed).weights() for seed in (["1"], ["1", "--do_distil"], ["2"])]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


@covers("--num_patience_epochs", "--log_interval")
def test_evaluations_and_patience(run):
    slow = [
        "--per_device_train_batch_size",
        "8",
        *NO_LEARNING,
        "--log_interval",
        "1",
    ]  # 18 updates, none of them better
    assert run("distillation", *slow, "--num_patience_epochs", "2").metrics["updates"] == 7
    assert run("distillation", *slow, "--num_patience_epochs", "0").metrics["updates"] == 18
    history = run("distillation", *NO_LEARNING, "--num_train_epochs", "11", "--log_interval", "4").metrics["history"]
    assert [entry["update"] for entry in history] == [4, 8, 11]


@covers("--save_interval")
@pytest.mark.parametrize(
    ("flags", "updates"),
    [
        (["--save_interval", "2"], [2, 4, 6]),
        (["--save_interval", "4", "--log_interval", "1"], [4]),
        (["--log_interval", "1"], [3, 6]),  # an update takes 25 seconds: at evaluations, once a minute
        (["--log_interval", "2"], [4]),
    ],
)
def test_when_the_state_is_saved(run, monkeypatch, flags, updates):
    saved = []
    calls = []
    save = torch.save
    monkeypatch.setattr("time.monotonic", lambda: 25.0 * sum(training for name, training, _ in calls if name[0] == "P"))
    monkeypatch.setattr(
        torch, "save", lambda state, path: (saved.append(state["progress"]["update"]), save(state, path))
    )
    with watched(calls):
        run_distillation.main([*DEFAULTS["distillation"], *flags, "--output_dir", "saved", "--overwrite"])
    assert saved == updates
    assert not list(Path("saved").rglob(".*"))


class Stopped(Exception):
    """Raised by a test to stop training."""


@covers("--overwrite")
@pytest.mark.parametrize(("flags", "updates"), [([], 4), (["--overwrite"], 6)])
def test_overwriting_starts_afresh_and_the_same_command_goes_on(run, monkeypatch, tmp_path, flags, updates):
    def stop(state, path):
        if state["progress"]["update"] == 4:
            raise Stopped
        return save(state, path)

    save = torch.save
    calls = []
    argv = [*DEFAULTS["distillation"], "--output_dir", str(tmp_path)]
    monkeypatch.setattr(torch, "save", stop)
    with pytest.raises(Stopped):
        run_distillation.main([*argv, "--save_interval", "2"])
    monkeypatch.setattr(torch, "save", save)
    with watched(calls):
        run_distillation.main([*argv, *flags])
    done = Run(tmp_path / "layer_dropped" / "kd_2_rte", calls)
    assert len(done.shapes(training=True)) == updates
    assert torch.equal(done.weights(), run("distillation").weights())


@covers("--selection_metric")
def test_the_selection_metric_selects(run):
    flags = [*SCORER, "--student_layer", "3", "--log_interval", "1", "--num_train_epochs", "14"]
    flags += ["--num_patience_epochs", "0"]
    runs = {name: run("distillation", *flags, "--selection_metric", name) for name in ("pearson_corr", "spearman_corr")}
    runs["corr"] = run("distillation", *flags)
    labels = rows("dev", task="stsb").labels
    for name, done in runs.items():
        best = max(done.metrics["history"], key=lambda entry: entry[name])
        assert done.metrics["best_update"] == best["update"]
        predictions = second.logits_of(second.load(done.folder / "ckpt"), rows("dev", task="stsb"))[:, 0].detach()
        correlations = pearsonr(predictions, labels)[0], spearmanr(predictions, labels)[0]
        assert [done.metrics["dev"][n] for n in runs] == pytest.approx([*correlations, sum(correlations) / 2], abs=1e-5)
    assert len({done.metrics["best_update"] for done in runs.values()}) == 3


@covers("--selection_split", "--max_eval_examples", "--do_test")
def test_rows_that_select_rows_that_report_and_the_test_set(run):
    dev = rows("dev")
    half = ["--selection_split", "half"]
    student = model(layers=(0, 1))
    teacher = model()
    for seed in ("1", "2"):  # which rows these are does not depend on it
        metrics = run("distillation", *NO_LEARNING, *half, "--seed", seed).metrics
        assert metrics["dev"]["acc"] == pytest.approx(second.accuracy(student, dev[DEV_SELECT]))
        assert metrics["report"]["acc"] == pytest.approx(second.accuracy(student, dev[DEV_REPORT]))
        assert metrics["teacher"]["acc"] == pytest.approx(second.accuracy(teacher, dev[DEV_REPORT]))
        assert metrics["rows"] == len(DEV_REPORT)
    metrics = run("distillation", *half, "--log_interval", "1").metrics
    assert metrics["dev"]["acc"] == max(entry["acc"] for entry in metrics["history"])
    limited = run("distillation", *NO_LEARNING, "--max_eval_examples", "7", "--do_test")
    assert limited.metrics["dev"]["acc"] == pytest.approx(second.accuracy(student, dev[:7]))
    tested = run("distillation", "--do_test")
    for done, count in ((limited, 7), (tested, TEST)):
        answers = second.logits_of(second.load(done.folder / "ckpt"), rows("test")).argmax(1)[:count].tolist()
        lines = [f"{index}\t{second.CLASSES[answer]}" for index, answer in enumerate(answers)]
        assert (done.folder / "RTE.tsv").read_text().splitlines() == ["index\tprediction", *lines]
    assert len(set(answers)) == 2
    assert not (run("distillation").folder / "RTE.tsv").exists()


SCORING = [  # flags of stage 4, and the arguments of the second implementation that they correspond to
    ([], {}),
    (["--temperature", "5", "--alpha", "0.2"], {"temperature": 5.0, "alpha": 0.2}),
    (["--alpha", "1"], {"alpha": 1.0}),
    (["--teacher_model_path", "other", "--student_model_path", "teacher"], {"teacher": "other", "student": "teacher"}),
    (["--score_split", "train"], {"split": "train"}),
    (["--score_split", "train", "--data_dir", "flipped", "--max_train_examples", "9"],
     {"split": "train", "data": "flipped", "first": 9}),
    (["--max_eval_examples", "35"], {"first": 35}),
    (["--max_length", "6"], {"max_length": 6}),
    (["--selection_split", "half"], {"which": DEV_SELECT}),
]  # fmt: skip
SCORING_WITHOUT_EFFECT = [[], ["--per_device_eval_batch_size", "7"], ["--pad_to_max_length", "--no_exact_shortcuts"]]
covered.update(
    flag
    for flags in [*(case[0] for case in SCORING), *SCORING_WITHOUT_EFFECT]
    for flag in flags
    if flag.startswith("--")
)


def scored(
    teacher="teacher", student="other", split="dev", data="datasets", max_length=40, first=None, which=None, **loss
):
    """Expressive and friendly scores (heads, neurons), and the mean task and distillation loss of 32 rows at a time."""
    examples = rows(split, data, max_length=max_length)[which or slice(first)]
    labels, teacher = examples.labels, model(teacher)
    theirs, ours = (second.logits_of(m, examples).detach() for m in (teacher, model(student)))
    expressive = second.scores(teacher, examples, lambda logits, group: second.task_loss(logits, labels[group]))
    friendly = second.scores(
        teacher, examples, lambda logits, g: second.distillation_loss(ours[g], logits, labels[g], **loss)
    )
    losses = second.task_loss(theirs, labels), second.distillation_loss(ours, theirs, labels, **loss)
    return expressive, friendly, *([part.mean().item() for part in values.split(32)] for values in losses)


@pytest.mark.parametrize(("flags", "changes"), SCORING, ids=lambda value: " ".join(value) if value else None)
def test_scores_are_those_of_the_second_implementation(run, flags, changes):
    done = run("sparsification", *flags)
    (expressive, friendly, _, losses) = scored(**changes)
    scores = done.scores
    split = changes.get("split", "dev")
    for index, kind in enumerate(("head", "neuron")):
        torch.testing.assert_close(scores[f"{kind}_expressive"], expressive[index], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(scores[f"{kind}_friendly"], friendly[index], atol=1e-5, rtol=1e-4)
        mean = (expressive[index] + friendly[index]) / 2
        torch.testing.assert_close(scores[f"{kind}_knowledgeable"], mean, atol=1e-5, rtol=1e-4)
    assert done.metrics[f"distillation_loss_per_{split}_batch"] == pytest.approx(losses, rel=1e-5)
    reported = rows("dev")[
        DEV_REPORT if "which" in changes else slice(changes.get("first") if split == "dev" else None)
    ]
    if "max_length" not in changes:
        student = model(changes.get("student", "other"))
        assert done.metrics["student"]["acc"] == pytest.approx(second.accuracy(student, reported))
        for sparsity in (0, 30, 90):
            cut = second.load(done.folder / "ckpt", sparsity=sparsity)
            assert done.metrics["sparsity"][str(sparsity)]["acc"] == pytest.approx(second.accuracy(cut, reported))


@pytest.mark.parametrize("flags", SCORING_WITHOUT_EFFECT, ids=" ".join)
def test_flags_that_change_only_how_scores_are_computed_change_no_score(run, flags):
    done = run("pruning", *flags)
    (expressive, _, losses, _) = scored()
    for kind, wanted in zip(("head", "neuron"), expressive, strict=True):
        torch.testing.assert_close(done.scores[f"{kind}_expressive"], wanted, atol=1e-5, rtol=1e-4)
    assert done.metrics["task_loss_per_dev_batch"] == pytest.approx(losses, rel=1e-5)


def test_scores_of_another_model_and_an_alpha_of_0(run):
    expressive = scored(teacher="other")[0]
    scores = run("pruning", "--model_path", "other").scores["neuron_expressive"]
    torch.testing.assert_close(scores, expressive[1], atol=1e-5, rtol=1e-4)
    assert (
        not run("sparsification", "--alpha", "0").scores["neuron_friendly"].any()
    )  # the labels do not see the teacher


@covers("--lam", "--score")
def test_lam_and_score_choose_what_sorts_the_units(run):
    stage_2 = run("pruning").scores
    weights = load_file("teacher/model.safetensors")
    names = ("head", "neuron")
    runs = {("knowledgeable", lam): run("sparsification", "--lam", str(lam)) for lam in (0, 0.3, 1)}
    for score in ("expressive", "friendly", "random", "magnitude"):
        runs[score, None] = run("sparsification", "--score", score)
    for (score, lam), done in runs.items():
        scores = done.scores
        sorted_weights = load_file(done.folder / "ckpt" / "model.safetensors")
        for kind in names:
            assert torch.equal(scores[f"{kind}_expressive"], stage_2[f"{kind}_expressive"])
            if lam is not None:
                mixed = lam * scores[f"{kind}_expressive"] + (1 - lam) * scores[f"{kind}_friendly"]
                torch.testing.assert_close(scores[f"{kind}_knowledgeable"], mixed, atol=1e-7, rtol=1e-6)
        for layer in range(3):
            name = f"bert.encoder.layer.{layer}.intermediate.dense.weight"
            order = scores[f"neuron_{score}"][layer].sort(descending=True, stable=True).indices
            assert torch.equal(sorted_weights[name], weights[name][order])
        lowest = (scores[f"head_{score}"].flatten().argsort()[:6] // 4).tolist()  # of 12 at 50 %, and their layers
        removed = done.read("ckpt/config.json")["sparsity_map"]["50"]["head"]
        assert removed == {str(layer): lowest.count(layer) for layer in sorted(set(lowest))}
    assert torch.equal(runs["knowledgeable", 1].scores["head_knowledgeable"], stage_2["head_expressive"])
    assert torch.equal(
        runs["knowledgeable", 0].scores["head_knowledgeable"], runs["friendly", None].scores["head_friendly"]
    )
    seeds = [run("sparsification", "--score", "random", *seed).scores["head_random"] for seed in ([], ["--seed", "1"])]
    assert not torch.equal(*seeds)
    for random in seeds:
        assert (random.min() >= 0) & (random.max() < 1)


def rewound(run, *flags: str) -> Run:
    """Students under the sparse teacher, cut at 0 and 70 %."""
    sparse = str(run("sparsification").folder / "ckpt")
    return run("rewinding", "--teacher_model_path", sparse, "--teacher_sparsity", "70", "0", *flags)


@covers("--teacher_sparsity", "--student_sparsity", "--do_rewind")
def test_teachers_and_students_are_cut_at_their_sparsity(run):
    sparse = str(run("sparsification").folder / "ckpt")
    for flags in ([], ["--no_teacher_cache", "--do_rewind"]):
        done = rewound(run, *flags)
        assert {path.name for path in done.folder.glob("ckpt*")} == {"ckpt_0", "ckpt_70"}
        for sparsity in (0, 70):
            loss, after, before = trained(teacher=sparse, sparsity=sparsity)
            result = done.metrics["sparsity"][str(sparsity)]
            assert result["history"][-1]["loss"] == pytest.approx(loss, rel=1e-5)
            assert (done.weights(f"ckpt_{sparsity}") - after).norm() < 1e-3 * (after - before).norm()
            accuracy = second.accuracy(model(sparse, sparsity=sparsity), rows("dev"))
            assert result["teacher"]["acc"] == pytest.approx(accuracy)
    pruned = str(run("pruning").folder / "ckpt")
    train = rows("train")
    ours, theirs = (second.logits_of(m, train) for m in (model(pruned, sparsity=50), model()))
    done = run("distillation", *NO_LEARNING, "--student_model_path", pruned, "--student_sparsity", "50")
    loss = second.distillation_loss(ours, theirs, train.labels).mean().item()
    assert done.metrics["history"][-1]["loss"] == pytest.approx(loss, rel=1e-5)
    assert done.folder.parent.name == "parameter_pruned"


@covers("--teacher_schedule")
@pytest.mark.parametrize("flags", [[], ["--per_device_train_batch_size", "5", "--num_grad_accum_steps", "5"]])
@pytest.mark.parametrize("turns", [[70, 70, 70, 0, 0, 0], [0, 0, 70, 70, 30, 30], [70, 70, 0, 70, 70, 0]])
def test_the_teachers_of_a_schedule_take_turns(run, turns, flags):
    schedule = [sparsity for sparsity, _ in itertools.groupby(turns)]  # four have two, one, two and one of six updates
    sparse, train = str(run("sparsification").folder / "ckpt"), rows("train")
    targets = {s: second.logits_of(model(sparse, sparsity=s), train).detach() for s in schedule}
    student, turn = model(layers=(0, 1)), iter(turns)
    before = second.weights_of(student)
    loss = second.train(
        student,
        train,
        lambda logits: second.distillation_loss(logits, targets[next(turn)], train.labels),
        updates=6,
        learning_rate=1e-3,
    )
    after = second.weights_of(student)
    done = run("rewinding", "--teacher_model_path", sparse, "--teacher_schedule", *map(str, schedule), *flags)
    assert done.metrics["history"][-1]["loss"] == pytest.approx(loss, rel=1e-5)
    assert (done.weights() - after).norm() < 1e-3 * (after - before).norm()
    for sparsity in schedule:  # none of them alone teaches this, nor all in another order
        assert (trained(teacher=sparse, sparsity=sparsity)[1] - after).norm() > 5e-3 * (after - before).norm()
        accuracy = second.accuracy(model(sparse, sparsity=sparsity), rows("dev"))
        assert done.metrics["teachers"][str(sparsity)]["acc"] == pytest.approx(accuracy)


def test_a_schedule_of_one_is_a_rewind_at_that_sparsity(run):
    sparse = str(run("sparsification").folder / "ckpt")
    done = run("rewinding", "--teacher_model_path", sparse, "--teacher_schedule", "70")
    assert torch.equal(done.weights(), rewound(run).weights("ckpt_70"))


@covers("--match_spread")
def test_a_teachers_logits_take_the_spread_of_another_sparsitys(run):
    sparse, train = str(run("sparsification").folder / "ckpt"), rows("train")
    dense, cut = (second.logits_of(model(sparse, sparsity=s), train).detach() for s in (0, 70))
    wanted = entropy((cut / 2).softmax(-1).numpy(), axis=1).mean()
    low, high = 0.01, 100.0
    for _ in range(40):  # the entropy grows with the factor
        factor = math.sqrt(low * high)
        is_above = entropy((dense / (2 * factor)).softmax(-1).numpy(), axis=1).mean() > wanted
        low, high = (low, factor) if is_above else (factor, high)
    student = model(layers=(0, 1))
    before = second.weights_of(student)
    loss = second.train(
        student,
        train,
        lambda logits: second.distillation_loss(logits, dense / factor, train.labels),
        updates=6,
        learning_rate=1e-3,
    )
    after = second.weights_of(student)
    flags = ["--teacher_model_path", sparse, "--teacher_sparsity", "0", "70", "--match_spread", "70"]
    done = run("rewinding", *flags)
    assert done.read("ckpt_0/metrics.json")["spread_factor"] == pytest.approx(factor, rel=1e-4)
    assert done.read("ckpt_0/metrics.json")["history"][-1]["loss"] == pytest.approx(loss, rel=1e-5)
    assert (done.weights("ckpt_0") - after).norm() < 1e-3 * (after - before).norm()
    assert (trained(teacher=sparse, sparsity=0)[1] - after).norm() > 5e-3 * (after - before).norm()
    # its own spread is left as it is
    assert done.read("ckpt_70/metrics.json")["spread_factor"] == pytest.approx(1, rel=1e-6)
    assert (done.weights("ckpt_70") - rewound(run).weights("ckpt_70")).norm() < 1e-3 * (after - before).norm()


def test_the_best_sparsity_is_chosen_on_the_rows_that_select(run):
    half = ["--selection_split", "half"]
    flags = ["--teacher_model_path", str(run("sparsification", *half).folder / "ckpt"), *half, *NO_LEARNING]
    flags += ["--teacher_sparsity", "0", "50"]
    done = run("rewinding", *flags)
    for name, selected, reported in (("ckpt_0", 0.4, 0.9), ("ckpt_50", 0.6, 0.1)):
        result = {**done.read(f"{name}/metrics.json"), "dev": {"acc": selected}, "report": {"acc": reported}}
        (done.folder / name / "metrics.json").write_text(json.dumps(result))
    [out] = {path for path in done.folder.parents if path.name.startswith("out")}
    run_rewinding.main([*DEFAULTS["rewinding"], *flags, "--output_dir", out.name, "--do_test"])
    assert done.metrics["best_teacher_sparsity"] == 50
    assert done.metrics["submission"]["checkpoint"] == "ckpt_50"


@covers("--pkd_weight", "--tinybert_weight", "--minilm_weight")
@pytest.mark.parametrize("name", ["pkd", "tinybert", "minilm"])
def test_losses_between_layers_are_added_by_their_weight(run, name):
    train = rows("train")
    flags = [*NO_LEARNING, "--num_train_epochs", "1"]
    inputs = [train.inputs[key] for key in ("input_ids", "token_type_ids", "attention_mask")]
    student = PrunableBert.from_pretrained(run("distillation", *NO_LEARNING).folder / "ckpt").eval()
    between = losses_of(student, PrunableBert.from_pretrained("teacher").eval(), inputs)[name].mean().item()
    logits = trained(learning_rate=0.0)[0]
    for weight in (1, 3):
        done = run("distillation", *flags, f"--{name}_weight", str(weight))
        assert done.metrics["history"][-1]["loss"] == pytest.approx(logits + weight * between, rel=1e-5)
    assert run("distillation", f"--{name}_weight", "3").weights().ne(run("distillation").weights()).any()


def test_the_table_that_is_printed_is_the_result(run):
    def printed(done: Run) -> list[list[str]]:
        """The cells of the lines without a time before them."""
        return [re.split("  +", line.strip()) for line in done.log.splitlines() if line and not line.startswith("20")]

    for stage in ("pruning", "sparsification"):
        by_sparsity = run(stage).metrics["sparsity"]
        cells = [[str(s), f"{by_sparsity[str(s)]['acc']:.4f}"] for s in range(0, 100, 10)]
        assert printed(run(stage)) == [["sparsity", "acc"], *cells]
    flags = [*NO_LEARNING, "--seed", "1"]
    metrics = run("finetuning", *NO_LEARNING, "--seed", "1").metrics
    cells = [str(metrics["best_update"]), f"{metrics['report']['acc']:.4f}"]
    assert printed(run("finetuning", *flags)) == [["update", "acc"], cells]
    metrics = run("distillation").metrics
    names = {"teacher": metrics["teacher"], "student": metrics["report"]}
    cells = [[name, f"{of['acc']:.4f}"] for name, of in names.items()]
    assert printed(run("distillation")) == [["acc"], *cells]
    metrics = rewound(run).metrics
    assert printed(rewound(run))[0] == ["teacher sparsity", "student acc", "its teacher", "trial student"]
    teacher_metrics, trial = run("sparsification").metrics["sparsity"], run("sparsification").metrics["student"]["acc"]
    for cells, sparsity in zip(printed(rewound(run))[1:3], ("0", "70"), strict=True):
        numbers = [metrics["sparsity"][sparsity]["report"]["acc"], teacher_metrics[sparsity]["acc"], trial]
        assert cells[0].removesuffix(" *") == sparsity
        assert cells[1:] == [f"{number:.4f}" for number in numbers]


@covers("--report_to", "--output_dir", "--debug")
def test_the_files_of_a_run_and_the_traceback_of_an_error(run, capsys):
    assert {path.name for path in run("distillation").folder.iterdir()} == {
        "args.json",
        "ckpt",
        "log.txt",
        "metrics.json",
    }
    capsys.readouterr()
    for flags, lines in (([], 1), (["--debug"], 10)):
        with pytest.raises(SystemExit):
            run_pruning.main(["--model_path", "nowhere/at/all", *flags])
        error = capsys.readouterr().err
        assert len(error.splitlines()) >= lines
        assert ("Traceback" in error) == bool(flags)


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_flag_is_forgotten(script, capsys):
    with pytest.raises(SystemExit):
        SCRIPTS[script].main(["--help"])
    flags = set(re.findall(r"^  (?:-h, )?(--\w+)", capsys.readouterr().out, flags=re.MULTILINE))
    assert len(flags) > 20
    assert flags <= covered | ELSEWHERE.keys()
