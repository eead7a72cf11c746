"""The loop: updates, accumulation, evaluation, early stopping, cached teachers."""

import contextlib
import copy
import itertools
import math
import random
from dataclasses import replace

import pytest
import torch
from conftest import sentence, small_config
from torch import nn

from models.bert import PrunableBert
from models.losses import student_loss, task_loss
from utils.arguments import SCHEDULERS
from utils.batches import tokenise
from utils.evaluation import evaluate, predict, teacher_logits_fn
from utils.readers import Split
from utils.recipe import Recipe
from utils.training import fit
from utils.updater import Updater
from utils.vocabulary import seen_rows

QUICK = Recipe(batch_size=8, learning_rate=1e-3, num_train_epochs=2, log_interval=3)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return PrunableBert(small_config())


@pytest.fixture
def no_dropout():
    """A model without dropout, so that two computations on the same data can be compared."""
    torch.manual_seed(0)
    model = PrunableBert(small_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    model.cls[2].p = 0.0
    return model


def fit_and_select(model, examples, loss_fn, recipe, train_state=None):
    """Train on examples and select the best weights on the same."""
    options = {"eval_fn": lambda: evaluate(model, examples, "acc", 8), "selection_metric": "acc"}
    return fit(model, examples, loss_fn, recipe, **options, train_state=train_state)


def make_examples(tokenizer, rows: int, **options):
    rng = random.Random(0)
    texts = [sentence(rng, rng.randint(1, 12)) for _ in range(rows)]
    labels = [len(text) // 3 % 2 for text in texts]
    return replace(tokenise(Split(texts, None, labels), tokenizer, 40), **options)


@pytest.mark.parametrize("rows", [16, 13, 9])
def test_accumulating_2_times_8_equals_a_batch_of_16(no_dropout, tokenizer, rows):
    examples = make_examples(tokenizer, rows)
    models = [copy.deepcopy(no_dropout), copy.deepcopy(no_dropout)]
    recipes = [QUICK._replace(batch_size=8, num_grad_accum_steps=2), QUICK._replace(batch_size=16)]
    losses = [
        Updater(model, task_loss, recipe, 10).update(examples, torch.arange(rows))
        for model, recipe in zip(models, recipes, strict=True)
    ]
    torch.testing.assert_close(*losses)
    for ours, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=1e-4)


def test_the_first_update_is_adamw_with_the_papers_eps(no_dropout, tokenizer):
    examples = make_examples(tokenizer, 8)
    before = copy.deepcopy(no_dropout)
    batch = examples.batch(torch.arange(8))
    task_loss(before(*batch.inputs), batch).mean().backward()
    recipe = QUICK._replace(warmup_proportion=0.0, max_grad_norm=0.0, weight_decay=0.1)
    Updater(no_dropout, task_loss, recipe, 10).update(examples, torch.arange(8))
    for name in ("cls.0.weight", "cls.0.bias"):
        weight = before.get_parameter(name)
        gradient = before.get_parameter(name).grad
        decay = 1 - 1e-3 * 0.1 if name == "cls.0.weight" else 1.0
        expected = weight * decay - 1e-3 * gradient / (gradient.abs() + 1e-6)
        torch.testing.assert_close(no_dropout.get_parameter(name), expected, atol=1e-6, rtol=1e-4)


def overflowing(logits, batch):
    """A loss whose float16 gradients are infinite."""
    return logits.sum(1) * 1e30


def test_updates_that_loss_scaling_skips_change_no_row_seen_or_not(no_dropout, tokenizer):
    examples = make_examples(tokenizer, 8)
    recipe = QUICK._replace(dtype=torch.float16, weight_decay=0.5, warmup_proportion=0.0, learning_rate=0.1)
    with seen_rows(no_dropout, examples.tokens) as embedding:
        updater = Updater(no_dropout, task_loss, recipe, 10, embedding.decay)
        before = embedding.all_rows()
        updater.loss_fn = overflowing
        updater.update(examples, torch.arange(8))
        assert torch.equal(embedding.all_rows(), before)
        updater.loss_fn = task_loss
        updater.update(examples, torch.arange(8))
        after = embedding.all_rows()
        learning_rate = 0.1 * 9 / 10  # the schedule goes on when an update is skipped
    unseen = [row for row in range(5, 45) if row not in examples.tokens]
    assert len(unseen) > 5
    torch.testing.assert_close(after[unseen], before[unseen] * (1 - learning_rate * 0.5))


def cosine(turns: float) -> float:
    return (1 + math.cos(math.pi * turns)) / 2


SCHEDULES = {  # the share of the peak at update n of 20, of which 4 are warm-up: share(n - 4 of 16)
    "linear": lambda n: 1 - n / 16,
    "cosine": lambda n: cosine(n / 16),
    "cosine_with_restarts": lambda n: cosine(n / 16),  # with one cycle
    "polynomial": lambda n: (1 - n / 16) * (1 - 1e-4) + 1e-4,  # down to 1e-7
    "constant": lambda n: 1.0,
    "constant_with_warmup": lambda n: 1.0,
}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_learning_rates_follow_the_schedule(no_dropout, tokenizer, kind):
    recipe = QUICK._replace(lr_scheduler_type=kind, warmup_proportion=0.2)
    examples = make_examples(tokenizer, 2)
    updater = Updater(no_dropout, task_loss, recipe, 20)
    rates = []
    for _ in range(20):
        rates.append(updater.optimizer.param_groups[0]["lr"])
        updater.update(examples, torch.arange(2))
    warmup = [1e-3] * 4 if kind == "constant" else [1e-3 * n / 4 for n in range(4)]
    assert rates == pytest.approx([*warmup, *(1e-3 * SCHEDULES[kind](n) for n in range(16))], rel=1e-6)


def test_fit_makes_the_updates_of_the_whole_schedule_and_no_others(no_dropout, tokenizer):
    examples = make_examples(tokenizer, 20)
    other = copy.deepcopy(no_dropout)
    recipe = QUICK._replace(warmup_proportion=0.5)
    better = itertools.count()
    result = fit(no_dropout, examples, task_loss, recipe, eval_fn=lambda: {"acc": next(better)}, selection_metric="acc")
    updater = Updater(other, task_loss, recipe, 6)
    generator = torch.Generator().manual_seed(recipe.seed)
    losses = [updater.update(examples, ids).item() for _ in range(2) for ids in examples.epoch(8, generator)]
    means = [sum(losses[:3]) / 3, sum(losses[3:]) / 3]
    assert [entry["loss"] for entry in result.history] == pytest.approx(means, rel=1e-5)
    for ours, theirs in zip(no_dropout.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_gradients_are_clipped_to_the_norm_of_all_of_them(no_dropout, tokenizer):
    examples = make_examples(tokenizer, 8)
    limit = 1e-4  # so short that AdamW's eps of 1e-6 weighs
    before = copy.deepcopy(no_dropout)
    batch = examples.batch(torch.arange(8))
    task_loss(before(*batch.inputs), batch).mean().backward()
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in before.parameters() if p.grad is not None))
    assert norm > 0.1
    recipe = QUICK._replace(warmup_proportion=0.0, max_grad_norm=limit, weight_decay=0.0)
    Updater(no_dropout, task_loss, recipe, 10).update(examples, torch.arange(8))
    for name in ("cls.3.weight", "cls.0.bias"):
        weight = before.get_parameter(name)
        gradient = before.get_parameter(name).grad * limit / norm
        moved = no_dropout.get_parameter(name) - weight
        torch.testing.assert_close(moved, -1e-3 * gradient / (gradient.abs() + 1e-6), atol=1e-6, rtol=1e-2)


def test_weights_decay_and_biases_and_layer_norms_do_not(no_dropout, tokenizer):
    before = copy.deepcopy(no_dropout)
    recipe = QUICK._replace(warmup_proportion=0.0, weight_decay=0.5, learning_rate=0.1)
    Updater(no_dropout, lambda logits, batch: 0 * logits.sum(1), recipe, 10).update(
        make_examples(tokenizer, 8), torch.arange(8)
    )
    for name, weight in before.named_parameters():
        decays_not = name.endswith("bias") or "LayerNorm" in name
        torch.testing.assert_close(no_dropout.get_parameter(name), weight if decays_not else weight * (1 - 0.1 * 0.5))


def test_an_interval_longer_than_the_run_takes_no_more_memory(model, tokenizer):
    recipe = QUICK._replace(log_interval=10**15)  # four petabytes, were there a number for each update
    result = fit(
        model, make_examples(tokenizer, 24), task_loss, recipe, eval_fn=lambda: {"acc": 0.5}, selection_metric="acc"
    )
    assert [entry["update"] for entry in result.history] == [result.updates] == [6]


def test_fit_learns_and_keeps_the_best_weights(model, tokenizer):
    examples = make_examples(tokenizer, 64)
    recipe = QUICK._replace(num_train_epochs=18, log_interval=8)
    before = evaluate(model, examples, "acc", 16)["acc"]
    result = fit(
        model, examples, task_loss, recipe, eval_fn=lambda: evaluate(model, examples, "acc", 16), selection_metric="acc"
    )
    assert result.dev["acc"] == max(entry["acc"] for entry in result.history) > before + 0.2
    assert evaluate(model, examples, "acc", 16) == result.dev
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_the_last_update_is_always_evaluated(model, tokenizer):
    examples = make_examples(tokenizer, 20)
    result = fit(
        model,
        examples,
        task_loss,
        QUICK._replace(log_interval=100),
        eval_fn=lambda: {"acc": 0.5},
        selection_metric="acc",
    )
    assert [entry["update"] for entry in result.history] == [result.updates] == [6]


def test_by_default_a_tenth_of_an_epoch_is_between_evaluations_and_at_least_ten_updates(model, tokenizer):
    for rows, updates in ((126, [12, 24, 36, 48, 60, 72, 84, 96, 108, 120, 126]), (33, [10, 20, 30, 33])):
        recipe = QUICK._replace(batch_size=1, num_train_epochs=1, log_interval=None)
        result = fit(
            model,
            make_examples(tokenizer, rows),
            task_loss,
            recipe,
            eval_fn=lambda: {"acc": 0.5},
            selection_metric="acc",
        )
        assert [entry["update"] for entry in result.history] == updates
        assert result.history[0]["epoch"] == pytest.approx(updates[0] / rows, abs=5e-4)


def test_training_stops_when_nothing_gets_better_for_the_patience(model, tokenizer):
    examples = make_examples(tokenizer, 24)
    metrics = iter([0.5, 0.6, *[0.6] * 50])
    recipe = QUICK._replace(num_train_epochs=20, num_patience_epochs=2)
    result = fit(model, examples, task_loss, recipe, eval_fn=lambda: {"acc": next(metrics)}, selection_metric="acc")
    assert (result.best_update, result.updates) == (6, 12)


def test_patience_shorter_than_the_interval_waits_for_an_evaluation(model, tokenizer):
    recipe = QUICK._replace(num_train_epochs=4, num_patience_epochs=1, log_interval=8)
    result = fit(
        model, make_examples(tokenizer, 24), task_loss, recipe, eval_fn=lambda: {"acc": 0.0}, selection_metric="acc"
    )
    assert [entry["update"] for entry in result.history] == [8, 12]


def test_without_patience_training_goes_to_the_end(model, tokenizer):
    recipe = QUICK._replace(num_train_epochs=4, num_patience_epochs=0)
    result = fit(
        model, make_examples(tokenizer, 24), task_loss, recipe, eval_fn=lambda: {"acc": 0.0}, selection_metric="acc"
    )
    assert result.updates == 12


def test_a_run_depends_on_its_seed_alone(model, tokenizer):
    examples = make_examples(tokenizer, 40)
    histories = []
    for seed, before in ((1, 5), (1, 6), (2, 5)):
        student = copy.deepcopy(model)
        torch.manual_seed(before)
        recipe = QUICK._replace(seed=seed)
        histories.append(
            fit(student, examples, task_loss, recipe, eval_fn=lambda: {"acc": 0.5}, selection_metric="acc").history
        )
    assert histories[0] == histories[1] != histories[2]


def test_training_the_seen_rows_only_is_training_the_whole_embedding(no_dropout, tokenizer):
    examples, other = make_examples(tokenizer, 12), make_examples(tokenizer, 60)
    recipe = QUICK._replace(weight_decay=0.5, learning_rate=1e-2)
    models = [copy.deepcopy(no_dropout) for _ in range(2)]
    whole = Updater(models[0], task_loss, recipe, 40)
    assert len(torch.unique(examples.tokens)) < len(torch.unique(other.tokens))
    with seen_rows(models[1], examples.tokens) as embedding:
        seen = Updater(models[1], task_loss, recipe, 40, embedding.decay)
        assert len(models[1].embeddings.word_embeddings.weight) < 45
        for _ in range(20):
            torch.testing.assert_close(
                seen.update(examples, torch.arange(12)), whole.update(examples, torch.arange(12))
            )
        # tokens that training never saw are there all the same
        torch.testing.assert_close(predict(models[1], other, 8), predict(models[0], other, 8), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(*(m.bert.embeddings.word_embeddings.weight for m in models), atol=1e-5, rtol=1e-4)
    unseen = [row for row in range(5, 45) if row not in examples.tokens]
    after, before = (m.bert.embeddings.word_embeddings.weight[unseen] for m in (models[1], no_dropout))
    assert (after.abs() < before.abs()).all()


def test_predictions_are_in_file_order_whatever_the_batches(model, tokenizer):
    examples = make_examples(tokenizer, 21)
    logits = predict(model, examples, 4)
    alone = torch.cat([model(*examples.batch(torch.tensor([index])).inputs) for index in range(21)])
    torch.testing.assert_close(logits, alone.detach(), atol=1e-5, rtol=1e-5)


def test_cached_teacher_logits_equal_those_computed_in_each_step(model, tokenizer):
    examples = make_examples(tokenizer, 33)
    cached, computed = (teacher_logits_fn(model, examples, 8, cached=cached) for cached in (True, False))
    for ids in examples.epoch(5, torch.Generator().manual_seed(0)):
        batch = examples.batch(ids)
        torch.testing.assert_close(cached(batch), computed(batch), atol=1e-5, rtol=1e-5)


def test_losses_with_and_without_shortcuts_are_the_same_on_the_same_batches(no_dropout, tokenizer):
    teacher = PrunableBert(small_config()).eval()
    losses = []
    for paper in (False, True):
        examples = make_examples(tokenizer, 40, **({"pad_to": 40, "group_by_length": False} if paper else {}))
        student = copy.deepcopy(no_dropout)
        student.use_exact_shortcuts(not paper)
        teacher.use_exact_shortcuts(not paper)
        teacher_logits = teacher_logits_fn(teacher, examples, 8, cached=not paper)
        with contextlib.nullcontext() if paper else seen_rows(student, examples.tokens) as embedding:
            updater = Updater(
                student,
                student_loss(teacher_logits),
                QUICK._replace(exact_shortcuts=not paper),
                50,
                embedding and embedding.decay,
            )
            order = torch.Generator().manual_seed(0)
            losses.append([updater.update(examples, torch.randperm(40, generator=order)[:8]).item() for _ in range(50)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def dtypes_inside(model, examples, dtype) -> set[torch.dtype]:
    """Dtypes of the outputs of the encoder's linear layers, in training and in evaluation."""
    dtypes = set()
    for module in model.layers.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))
    fit(model, examples, task_loss, QUICK._replace(dtype=dtype), eval_fn=lambda: {"acc": 0.5}, selection_metric="acc")
    predict(model, examples, 8, dtype)
    return dtypes


def test_half_precision_computes_in_it_and_trains_close_to_float32(no_dropout, tokenizer):
    examples = make_examples(tokenizer, 40)
    losses = {}
    for dtype in (None, torch.bfloat16, torch.float16):
        model = copy.deepcopy(no_dropout)
        result = fit(
            model,
            examples,
            task_loss,
            QUICK._replace(dtype=dtype),
            eval_fn=lambda: {"acc": 0.5},
            selection_metric="acc",
        )
        losses[dtype] = result.history[0]["loss"]
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert dtypes_inside(copy.deepcopy(no_dropout), examples, dtype) == {dtype or torch.float32}
    for dtype, digits in ((torch.bfloat16, 8), (torch.float16, 11)):
        assert losses[dtype] == pytest.approx(losses[None], rel=0.05)
        error = abs(losses[dtype] - losses[None]) / losses[None]
        assert 0 < error < 2 ** (3 - digits)  # rounding, no more
