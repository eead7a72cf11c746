"""Ranking, sparsity maps, sorting, cutting, dropping layers."""

import pytest
import torch
from conftest import random_batch, small_config

from models.bert import PrunableBert
from models.pruning import (
    SPARSITIES,
    chosen_layers,
    cut,
    cut_ever_deeper,
    drop_layers,
    initial_student,
    removed_per_layer,
    sort_units,
    sparsity_map,
)
from models.units import CheckpointError, Units, kept_units


@pytest.fixture
def model() -> PrunableBert:
    torch.manual_seed(0)
    return PrunableBert(small_config()).eval()


def scores(seed: int = 1) -> Units:
    generator = torch.Generator().manual_seed(seed)
    return Units(torch.rand(3, 4, generator=generator), torch.rand(3, 32, generator=generator))


def masks_of(model: PrunableBert, sparsity: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks that switch off what cutting a sorted model would remove: the ends of each layer's lists."""
    head, neuron = torch.zeros(3, 4), torch.zeros(3, 32)
    for layer, (heads, neurons) in enumerate(kept_units(model.config, sparsity)):
        head[layer, :heads], neuron[layer, :neurons] = 1, 1
    return head, neuron


def test_the_lowest_units_of_all_layers_go_and_the_counts_add_up():
    score = torch.tensor([[5.0, 1.0, 4.0], [0.0, 6.0, 3.0]])
    assert removed_per_layer(score, 50) == {"0": 1, "1": 2}
    assert removed_per_layer(score, 0) == {}
    for sparsity, removed in sparsity_map(scores()).items():
        assert sum(removed["head"].values()) == round(int(sparsity) / 100 * 12)
        assert sum(removed["neuron"].values()) == round(int(sparsity) / 100 * 96)


def test_of_equal_scores_the_first_layers_go_first():
    assert removed_per_layer(torch.ones(2, 4), 50) == {"0": 4}


def test_sorting_changes_no_logit_but_the_order(model):
    batch = random_batch(model.config)
    before = model(*batch)
    query = model.layers[0].self_attention.query.weight.clone()
    sort_units(model, scores())
    torch.testing.assert_close(model(*batch), before, atol=1e-5, rtol=1e-5)
    assert not torch.equal(model.layers[0].self_attention.query.weight, query)
    assert model.config.sparsity == "0"
    assert list(model.config.sparsity_map) == [str(s) for s in SPARSITIES]


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_cut_equals_masked(model, sparsity):
    sort_units(model, scores())
    batch = random_batch(model.config)
    torch.testing.assert_close(
        cut(model, sparsity)(*batch), model(*batch, *masks_of(model, sparsity)), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("emptied", [0, 1, 2])
def test_cut_equals_masked_when_a_layer_is_emptied(model, emptied):
    head, neuron = scores()
    head[emptied], neuron[emptied] = 0, 0
    sort_units(model, Units(head, neuron))
    student = cut(model, 40)
    assert student.layers[emptied].self_attention.heads == 0
    assert student.layers[emptied].output.dense.in_features == 0
    batch = random_batch(model.config)
    expected = model(*batch, *masks_of(model, 40))
    torch.testing.assert_close(student(*batch), expected, atol=1e-5, rtol=1e-5)
    # the bias of an emptied layer's output projection stays
    student.layers[emptied].output.dense.bias.data += torch.randn(32)
    assert not torch.allclose(student(*batch), expected, atol=1e-3)


def test_neurons_go_in_multiples_of_eight_and_heads_whole(model):
    model.config.sparsity_map = {"50": {"head": {"1": 3}, "neuron": {"0": 12, "1": 20, "2": 3}}}
    assert kept_units(model.config, 50) == [(4, 16), (1, 16), (4, 32)]


def test_cutting_keeps_the_deeper_entries_of_the_map_only(model):
    sort_units(model, scores())
    student = cut(model, 70)
    assert list(student.config.sparsity_map) == ["70", "80", "90"]
    assert student.config.sparsity == "70"
    batch = random_batch(model.config)
    assert torch.equal(cut(student, 90)(*batch), cut(model, 90)(*batch))
    with pytest.raises(CheckpointError, match="cut at 70 % cannot be cut at 30 %"):
        cut(student, 30)


def test_cutting_leaves_the_model_it_copies_alone(model):
    sort_units(model, scores())
    batch = random_batch(model.config)
    before = model(*batch)
    cut(model, 90).cls[3].weight.data.zero_()
    assert torch.equal(model(*batch), before)
    assert model.config.sparsity == "0"


def test_cutting_a_copy_ever_deeper_is_cutting_anew_at_each_sparsity(model):
    sort_units(model, scores())
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    for (sparsity, smaller), expected in zip(cut_ever_deeper(model), SPARSITIES, strict=True):
        anew = cut(model, expected)
        assert (sparsity, vars(smaller.config)) == (expected, vars(anew.config))
        for name, weight in anew.state_dict().items():
            assert torch.equal(smaller.state_dict()[name], weight), (sparsity, name)
    assert model.config.sparsity == "0"
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_sparsity_that_the_map_does_not_hold(model):
    with pytest.raises(CheckpointError, match="sparsity 70 is not in the checkpoint's sparsity map, which holds 0"):
        cut(model, 70)


@pytest.mark.parametrize(
    ("choice", "kept", "layers"),
    [
        ("first", 4, [0, 1, 2, 3]),
        ("last", 4, [8, 9, 10, 11]),
        ("spaced", 4, [0, 4, 7, 11]),
        ("spaced", 1, [0]),
        ("0,3,7,11", 4, [0, 3, 7, 11]),
    ],
)
def test_the_layers_that_a_student_keeps(choice, kept, layers):
    assert chosen_layers(choice, kept, 12) == layers


def test_layers_that_are_not_there():
    with pytest.raises(CheckpointError, match="the model has only 3 layers"):
        chosen_layers("last", 4, 3)
    with pytest.raises(CheckpointError, match="the model's layers go from 0 to 2"):
        chosen_layers("0,3", 2, 3)


@pytest.mark.parametrize("kept", [[0, 1], [1, 2], [0, 2]])
def test_dropping_layers_keeps_the_others_in_order(model, tmp_path, kept):
    student = drop_layers(model, kept)
    assert len(model.layers) == 3
    for layer, old in zip(student.layers, kept, strict=True):
        assert torch.equal(layer.output.dense.weight, model.layers[old].output.dense.weight)
    student.save_pretrained(tmp_path)
    batch = random_batch(model.config)
    assert torch.equal(PrunableBert.from_pretrained(tmp_path).eval()(*batch), student(*batch))


@pytest.mark.parametrize("kept", [[0, 1], [1, 2], [0, 2]])
def test_dropping_layers_of_a_cut_model_keeps_their_widths(model, tmp_path, kept):
    model.config.sparsity_map = {"50": {"head": {"0": 3, "1": 2, "2": 1}, "neuron": {"0": 8, "1": 24, "2": 16}}}
    student = drop_layers(cut(model, 50), kept)
    student.save_pretrained(tmp_path)
    again = PrunableBert.from_pretrained(tmp_path)
    widths = [(layer.self_attention.heads, layer.output.dense.in_features) for layer in again.layers]
    assert widths == [[(1, 24), (2, 8), (3, 16)][layer] for layer in kept]
    batch = random_batch(model.config)
    torch.testing.assert_close(again.eval()(*batch), student.eval()(*batch))


@pytest.mark.parametrize("settings", [{"sparsity_map": None}, {"sparsity_map": {"0": {"head": {}, "neuron": {}}}}])
def test_a_map_that_says_nothing_is_that_of_an_uncut_model(model, settings):
    vars(model.config).update(settings)
    batch = random_batch(model.config)
    assert torch.equal(cut(model, 0)(*batch), model(*batch))
    assert len(drop_layers(model, [0, 2]).layers) == 2


def test_the_student_is_cut_if_a_sparsity_is_given(model):
    sort_units(model, scores())
    assert initial_student(model, 2, None).config.num_hidden_layers == 2
    assert initial_student(model, 2, 60).config.sparsity == "60"
    assert initial_student(model, 2, 0).config.num_hidden_layers == 3
