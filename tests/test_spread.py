"""Logits that are spread as widely as others."""

import math
from types import SimpleNamespace

import pytest
import torch
from conftest import refused
from scipy.stats import entropy

import run_rewinding
from models.spread import match_spread, mean_entropy
from models.units import CheckpointError
from stage import TeacherOutputs
from utils.errors import InputError


def test_the_mean_entropy_is_that_of_scipy():
    logits = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert mean_entropy(logits) == pytest.approx(entropy(logits.softmax(-1).numpy(), axis=1).mean(), rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_logits_divided_by_a_number_are_matched_by_multiplying_with_it(temperature):
    logits = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    matched, factor = match_spread(logits, logits / 3.5, temperature)
    assert factor == pytest.approx(3.5, rel=1e-6)
    assert torch.allclose(matched, logits / 3.5, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_entropies_match_at_the_temperature_and_classes_stay(temperature):
    sharp, other = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 1.0]).view(
        2, 1, 1
    )
    for logits, like in ((sharp, other), (other, sharp)):
        matched, factor = match_spread(logits, like, temperature)
        assert (factor > 1) == (logits is sharp)
        assert mean_entropy(matched / temperature) == pytest.approx(mean_entropy(like / temperature), rel=1e-5)
        assert torch.equal(matched.argmax(-1), logits.argmax(-1))


def test_scores_keep_their_mean_and_take_the_others_deviation():
    scores, like = torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([[0.0], [0.5], [1.0]])
    matched, factor = match_spread(scores, like, 2.0)
    assert factor == pytest.approx(math.sqrt(7) / 0.5)  # deviations sqrt(7) and 0.5
    assert matched.flatten().tolist() == pytest.approx([3 - 2 / factor, 3 - 1 / factor, 3 + 3 / factor])


@pytest.mark.parametrize(
    ("logits", "like"),
    [
        (torch.zeros(5, 1), torch.arange(5.0)[:, None]),
        (torch.arange(5.0)[:, None], torch.zeros(5, 1)),
        (torch.zeros(5, 2), torch.randn(5, 2)),  # no factor makes equal logits unequal
        (torch.randn(5, 2), torch.zeros(5, 2)),  # nor unequal ones equal
    ],
)
def test_spreads_that_cannot_be_matched_are_refused(logits, like):
    with pytest.raises(CheckpointError):
        match_spread(logits, like, 2.0)
    outputs = TeacherOutputs(lambda batch: logits, None)
    with pytest.raises(InputError, match="^--match_spread: "):  # names the flag that asked for it
        run_rewinding.spread_like(like, outputs, SimpleNamespace(train=None), 2.0)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--teacher_schedule", "70", "0"], "--teacher_schedule, which has several teachers"),
        (["--no_teacher_cache"], "--no_teacher_cache, which runs the teacher in every step"),
        (["--pkd_weight", "1"], "--pkd_weight, which runs the teacher in every step"),
    ],
)
def test_what_another_spread_does_not_go_with_is_refused(workplace, capsys, flags, reason):
    models = ["--teacher_model_path", "teacher", "--student_model_path", "teacher"]
    line = refused(run_rewinding, capsys, *models, "--match_spread", "0", *flags)
    assert line.endswith(f"error: --match_spread: not with {reason}")
