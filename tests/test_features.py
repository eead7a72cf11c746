"""Features of layers, and the losses between them, against Hugging Face's BERT and plain loops."""

from functools import partial

import pytest
import torch
from conftest import random_batch, small_config
from torch.nn import functional as F
from transformers import BertModel

from models.bert import PrunableBert
from models.layer_losses import INTERMEDIATE_LOSSES, IntermediateLoss, record_features, similarities, teacher_layer
from models.losses import distillation_loss
from models.pruning import cut, sort_units
from models.units import Units
from utils.batches import Batch


def pair_of_models(**changes) -> tuple[PrunableBert, PrunableBert]:
    """A student of two layers and a teacher of four, in eval mode."""
    torch.manual_seed(0)
    student = PrunableBert(small_config(num_hidden_layers=2, **changes))
    teacher = small_config(num_hidden_layers=4)
    return student.eval(), PrunableBert(teacher).eval()


def losses_of(student: PrunableBert, teacher: PrunableBert, batch) -> dict[str, torch.Tensor]:
    with record_features(student) as ours, record_features(teacher) as theirs:
        student(*batch)
        with torch.no_grad():
            teacher(*batch)
    return {name: loss(ours, theirs, batch[2]) for name, loss in INTERMEDIATE_LOSSES.items()}


def reference(model: PrunableBert, ids, types) -> tuple[list, dict]:
    """Hidden states (T, D) and queries, keys, values (T, H, size) of one example by Hugging Face's BERT."""
    bert = BertModel(model.config, add_pooling_layer=False).eval()
    bert.load_state_dict(model.bert.state_dict())
    states = bert(input_ids=ids[None], token_type_ids=types[None], output_hidden_states=True).hidden_states
    heads = model.config.num_attention_heads
    vectors = {
        name: [
            getattr(layer.attention.self, name)(state[0]).unflatten(-1, (heads, -1))
            for layer, state in zip(bert.encoder.layer, states, strict=False)
        ]
        for name in ("query", "key", "value")
    }
    return [state[0] for state in states], vectors


def test_features_are_those_of_hugging_faces_bert():
    model = pair_of_models()[1]
    batch = random_batch(model.config)
    with record_features(model) as features:
        model(*batch)
    bert = BertModel(model.config, add_pooling_layer=False).eval()
    bert.set_attn_implementation("eager")
    bert.load_state_dict(model.bert.state_dict())
    ids, types, mask = batch
    output = bert(ids, mask.long(), types, output_hidden_states=True, output_attentions=True)
    for ours, theirs in zip(features.hidden, output.hidden_states, strict=True):
        torch.testing.assert_close(ours[mask], theirs[mask], atol=1e-5, rtol=1e-5)
    for query, key, theirs in zip(features.query, features.key, output.attentions, strict=True):
        scores = similarities(query, key, 4).masked_fill(~mask[:, None, None], -torch.inf)
        torch.testing.assert_close(scores.softmax(-1), theirs, atol=1e-5, rtol=1e-5)


def test_losses_equal_loops_over_layers_and_heads():
    student, teacher = pair_of_models(num_attention_heads=4)
    ids, types, mask = batch = random_batch(student.config)
    found = losses_of(student, teacher, batch)
    for row, length in enumerate(mask.sum(1).tolist()):
        (states, vectors), (their_states, theirs) = (
            reference(model, ids[row, :length], types[row, :length]) for model in (student, teacher)
        )
        first = [F.normalize(state[0], dim=0) for state in (states[1], their_states[2])]
        torch.testing.assert_close(found["pkd"][row], F.mse_loss(*first), atol=1e-6, rtol=1e-5)

        tinybert = sum(F.mse_loss(states[layer], their_states[2 * layer]) for layer in range(3))
        for layer in range(2):
            scores = [
                torch.einsum("shd,thd->hst", vectors["query"][at], vectors["key"][at]) / 8**0.5
                for vectors, at in ((vectors, layer), (theirs, 2 * layer + 1))
            ]
            tinybert = tinybert + sum(F.mse_loss(scores[0][head], scores[1][head]) for head in range(4)) / 4
        torch.testing.assert_close(found["tinybert"][row], tinybert, atol=1e-5, rtol=1e-5)

        minilm = 0.0
        for name in ("query", "key", "value"):
            for part in range(16):  # four for each head: columns 0 and 1, 2 and 3, ...
                ours, target = (
                    (columns @ columns.T / 2**0.5).softmax(-1)
                    for columns in (v[name][-1].flatten(1)[:, 2 * part : 2 * part + 2] for v in (vectors, theirs))
                )
                minilm = minilm + (target * (target / ours).log()).sum() / (16 * length)
        torch.testing.assert_close(found["minilm"][row], minilm, atol=1e-5, rtol=1e-4)


def test_padding_changes_no_loss():
    student, teacher = pair_of_models()
    batch = random_batch(student.config)
    short = losses_of(student, teacher, batch)
    longer = losses_of(student, teacher, [F.pad(tensor, (0, 9)) for tensor in batch])
    for name, loss in short.items():
        torch.testing.assert_close(longer[name], loss, atol=1e-6, rtol=1e-5)


def test_a_model_is_not_apart_from_itself():
    teacher = pair_of_models()[1]
    for loss in losses_of(teacher, teacher, random_batch(teacher.config)).values():
        torch.testing.assert_close(loss, torch.zeros(5), atol=1e-6, rtol=0)


@pytest.mark.parametrize("sparsity", [30, 90])
def test_cut_models_are_compared_by_what_is_left(sparsity):
    torch.manual_seed(0)
    student, dense = pair_of_models()
    layers = torch.arange(4.0)[:, None]  # the last layer's units are the lowest, so it loses all its heads first
    sort_units(dense, Units(torch.rand(4, 4) - layers, torch.rand(4, 32)))
    teacher = cut(dense, sparsity)
    assert teacher.layers[3].self_attention.heads == 0
    found = losses_of(student, teacher, random_batch(student.config))
    assert torch.equal(found["minilm"], torch.zeros(5))  # no head is left to be compared with
    for name in ("pkd", "tinybert"):
        assert (found[name] > 0).all()
        assert found[name].isfinite().all()
    sum(found["tinybert"]).backward()
    assert student.layers[1].output.dense.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_uneven_widths_are_split_into_parts_that_differ_by_one():
    left, right = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    found = similarities(left, right, 3)  # 7 numbers: 3, 2 and 2
    for part, columns in enumerate((slice(0, 3), slice(3, 5), slice(5, 7))):
        width = columns.stop - columns.start
        wanted = left[..., columns] @ right[..., columns].transpose(1, 2) / width**0.5
        torch.testing.assert_close(found[:, part], wanted)


def test_parts_of_one_number_are_its_products_and_parts_of_none_are_nothing():
    left, right = torch.randn(2, 5, 2), torch.randn(2, 5, 2)
    found = similarities(left, right, 3)
    for part in range(2):
        torch.testing.assert_close(found[:, part], left[..., part, None] * right[..., None, :, part])
    assert torch.equal(found[:, 2], torch.zeros(2, 5, 5))


def test_layers_are_paired_evenly_and_last_to_last():
    assert [teacher_layer(layer, 4, 12) for layer in range(5)] == [0, 3, 6, 9, 12]
    assert [teacher_layer(layer, 3, 3) for layer in range(4)] == [0, 1, 2, 3]
    assert [teacher_layer(layer, 5, 12) for layer in range(6)] == [0, 2, 5, 7, 10, 12]


def test_recording_changes_no_logit_and_leaves_nothing_behind():
    model = pair_of_models()[1]
    batch = random_batch(model.config)
    before = model(*batch)
    with record_features(model) as features:
        torch.testing.assert_close(model(*batch), before, atol=1e-6, rtol=1e-5)
        assert features.hidden[-1].shape[1] == batch[0].shape[1]  # the last layer computes all tokens
    recorded = features.hidden[-1]
    assert torch.equal(model(*batch), before)
    assert features.hidden[-1] is recorded
    assert not any(module._forward_hooks for module in model.modules())


def test_a_loss_between_layers_adds_to_the_one_on_logits_whatever_ran_before():
    student, teacher = pair_of_models()
    inputs = random_batch(student.config)
    batch = Batch(*inputs, torch.arange(5) % 2, torch.arange(5), torch.arange(5))
    expected = losses_of(student, teacher, inputs)
    on_logits = partial(distillation_loss, temperature=3.0, alpha=0.25)
    with torch.no_grad():
        logits = student(*inputs)
        alone = on_logits(student(*inputs), teacher(*inputs), batch)
    loss_fn = IntermediateLoss(student, teacher.train(), {"minilm": 2.0, "pkd": 0.5}, on_logits)
    with loss_fn:
        teacher(*random_batch(student.config, rows=3))
        total = loss_fn(student(*inputs), batch)
    torch.testing.assert_close(total, alone + 2 * expected["minilm"] + 0.5 * expected["pkd"])
    # the teacher computes as it is told to
    for dtype in (torch.float16, torch.bfloat16):
        in_half = IntermediateLoss(student, teacher, {}, lambda _, from_teacher, __: from_teacher, dtype)
        with in_half, torch.no_grad(), torch.autocast("cpu", dtype):
            assert torch.equal(in_half(logits, batch), teacher(*inputs).float())
    total.sum().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert torch.equal(student(*inputs), logits)
