"""Mask gradients: the definition, and that batching changes nothing."""

from dataclasses import replace

import pytest
import torch
from conftest import REFERENCE, small_config

from models.bert import PrunableBert
from models.losses import distance_to, distillation_loss, learn_from, task_loss
from models.scores import interpolate, magnitudes, mask_gradients, normalise, random_scores
from models.units import Units
from utils.batches import tokenise
from utils.glue import read_split
from utils.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def dev():
    tokenizer = load_tokenizer(str(REFERENCE / "rte_teacher"))
    return tokenise(read_split("rte", str(REFERENCE / "data"), "dev", 75), tokenizer, 64)


@pytest.fixture(scope="module")
def teacher():
    return PrunableBert.from_pretrained(REFERENCE / "rte_teacher").eval()


def by_definition(model, dev, loss, size=32) -> Units:
    """Batches of 32 in file order, padded together; |gradient of the batch's mean loss| summed over the batches."""
    total = [torch.zeros(4, 4), torch.zeros(4, 128)]
    for ids in torch.arange(len(dev)).split(size):
        batch, masks = dev.batch(ids), [torch.ones(4, 4, requires_grad=True), torch.ones(4, 128, requires_grad=True)]
        gradients = torch.autograd.grad(loss(model(*batch.inputs, *masks), batch).mean(), masks)
        total = [t + g.abs() for t, g in zip(total, gradients, strict=True)]
    return Units(*total)


@pytest.mark.parametrize("batch_size", [1, 7, 75])
def test_any_batching_gives_the_scores_of_the_definition(teacher, dev, batch_size):
    student_logits = torch.randn(75, 2, generator=torch.Generator().manual_seed(0))
    losses = [task_loss, distance_to(student_logits)]
    for ours, loss in zip(mask_gradients(teacher, dev.by_length(batch_size), losses), losses, strict=True):
        for kind, expected in zip(ours, by_definition(teacher, dev, loss), strict=True):
            torch.testing.assert_close(kind, expected, atol=1e-6, rtol=1e-4)


def test_padding_length_changes_no_score(teacher, dev):
    padded = replace(dev, pad_to=64)
    for ours, longer in zip(
        *(mask_gradients(teacher, data.by_length(16), [task_loss])[0] for data in (dev, padded)), strict=True
    ):
        torch.testing.assert_close(ours, longer, atol=1e-6, rtol=1e-4)


def test_scoring_leaves_weights_and_their_gradients_alone(teacher, dev):
    before = {name: parameter.clone() for name, parameter in teacher.named_parameters()}
    mask_gradients(teacher, dev.by_length(32), [task_loss])
    for name, parameter in teacher.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
        assert parameter.requires_grad


def test_scores_of_a_regression(dev):
    torch.manual_seed(0)
    model = PrunableBert(small_config(num_labels=1, vocab_size=106, max_position_embeddings=64))
    [gradients] = mask_gradients(model, dev.by_length(32), [lambda logits, batch: (logits.squeeze(-1) - 1) ** 2])
    assert gradients.head.shape == (3, 4)
    assert gradients.neuron.shape == (3, 32)
    assert (gradients.head > 0).all()


def test_each_layer_is_divided_by_its_norm():
    ones = normalise(Units(torch.tensor([[3.0, 4.0], [30.0, 40.0]]), torch.ones(2, 4)))
    torch.testing.assert_close(ones.head, torch.tensor([[0.6, 0.8], [0.6, 0.8]]))
    torch.testing.assert_close(ones.neuron, torch.full((2, 4), 0.5))
    assert torch.equal(normalise(Units(torch.zeros(1, 2), torch.zeros(1, 2))).head, torch.zeros(1, 2))


def test_knowledgeable_is_the_interpolation():
    expressive, friendly = (
        Units(torch.tensor([1.0]), torch.tensor([2.0])),
        Units(torch.tensor([5.0]), torch.tensor([4.0])),
    )
    assert interpolate(expressive, friendly, 0.25) == Units(torch.tensor([4.0]), torch.tensor([3.5]))
    assert interpolate(expressive, friendly, 1.0) == expressive
    assert interpolate(expressive, friendly, 0.0) == friendly


class Labels:
    def __init__(self, labels, ids=None):
        self.labels, self.ids = labels, ids


def test_distillation_loss_is_half_the_teachers_and_half_the_labels():
    student, teacher = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5, 2.0]])
    probabilities = (teacher / 2).softmax(-1)
    soft = -4 * (probabilities * (student / 2).log_softmax(-1)).sum(-1)
    hard = -student.log_softmax(-1)[:, 1]
    batch = Labels(torch.tensor([1]), torch.tensor([0]))
    torch.testing.assert_close(distillation_loss(student, teacher, batch, 2.0, 0.5), (soft + hard) / 2)
    torch.testing.assert_close(learn_from(lambda _: teacher)(student, batch), (soft + hard) / 2)
    torch.testing.assert_close(distance_to(student)(teacher, batch), (soft + hard) / 2)


def test_distillation_loss_of_a_regression_is_the_mean_of_squared_distances():
    student, teacher, batch = (
        torch.tensor([[1.0], [2.0]]),
        torch.tensor([[3.0], [2.0]]),
        Labels(torch.tensor([0.0, 5.0])),
    )
    assert distillation_loss(student, teacher, batch, 2.0, 0.5).tolist() == [2.5, 4.5]
    assert task_loss(student, batch).tolist() == [1.0, 9.0]


def test_the_gradient_of_friendliness_runs_through_the_teacher_only():
    teacher = torch.tensor([[0.5, 2.0]], requires_grad=True)
    distance_to(torch.tensor([[1.0, -1.0]]))(teacher, Labels(torch.tensor([1]), torch.tensor([0]))).sum().backward()
    assert teacher.grad.abs().sum() > 0


def test_random_scores_depend_on_the_seed_alone(teacher):
    torch.rand(3)
    first, again, other = (random_scores(teacher, seed) for seed in (1, 1, 2))
    assert [tuple(score.shape) for score in first] == [(4, 4), (4, 128)]
    assert torch.equal(first.head, again.head)
    assert torch.equal(first.neuron, again.neuron)
    assert not torch.equal(first.neuron, other.neuron)


def test_the_magnitude_of_a_unit_is_the_norm_of_all_its_weights(teacher):
    scores, layer = magnitudes(teacher), teacher.layers[1]
    attention = layer.attention["self"]
    columns = slice(2 * attention.size, 3 * attention.size)
    weights = [linear.weight[columns] for linear in (attention.query, attention.key, attention.value)]
    weights.append(layer.attention["output"].dense.weight[:, columns])
    assert scores.head[1, 2].item() == pytest.approx(sum(w.square().sum().item() for w in weights) ** 0.5)
    weights = [layer.intermediate["dense"].weight[5], layer.output.dense.weight[:, 5]]
    assert scores.neuron[1, 5].item() == pytest.approx(sum(w.square().sum().item() for w in weights) ** 0.5)
