"""Mask gradients: the definition, and that batching changes nothing."""

import gc
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import REFERENCE, small_config
from torch.nn import functional as F

import run_finetuning
import run_pruning
import run_sparsification
from models.bert import PrunableBert
from models.losses import distillation_loss, student_loss, task_loss, teacher_loss
from models.scores import interpolate, magnitudes, mask_gradients, normalise, random_scores
from models.units import Units
from utils.batches import tokenise
from utils.cache import load_examples
from utils.readers import read_split
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
        batch = dev.batch(ids)
        masks = [torch.ones(4, 4, requires_grad=True), torch.ones(4, 128, requires_grad=True)]
        gradients = torch.autograd.grad(loss(model(*batch.inputs, *masks), batch).mean(), masks)
        total = [t + g.abs() for t, g in zip(total, gradients, strict=True)]
    return Units(*total)


@pytest.mark.parametrize(
    ("batch_size", "window", "group_size"),
    [(1, None, 32), (7, None, 5), (75, None, 32), (7, 10, 32), (32, 64, 5), (10, 5, 5)],
)
def test_any_batching_gives_the_scores_of_the_definition(teacher, dev, batch_size, window, group_size):
    student_logits = torch.randn(75, 2, generator=torch.Generator().manual_seed(0))
    losses = [task_loss, teacher_loss(student_logits)]
    batches = dev.eval_batches(batch_size, window=window)
    for ours, loss in zip(mask_gradients(teacher, batches, losses, group_size), losses, strict=True):
        for kind, expected in zip(ours, by_definition(teacher, dev, loss, group_size), strict=True):
            torch.testing.assert_close(kind, expected, atol=1e-6, rtol=1e-4)


def bytes_held(shape: tuple[int, ...]) -> int:
    """Bytes of all live tensors whose last dimensions have this shape, including what they are views of."""
    tensors = [item for item in gc.get_objects() if type(item) is torch.Tensor and item.shape[-2:] == shape]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def test_memory_does_not_grow_with_the_rows(teacher, dev):
    row = 4 * 128 * 4
    held = []  # bytes of a row's masks of neurons, or of its gradient

    def measured(batches):
        for batch in batches:
            held.append(bytes_held((4, 128)))
            yield batch

    mask_gradients(teacher, measured(dev.eval_batches(8, window=16)), [task_loss], group_size=2)
    assert max(held) < 30 * row  # a batch's masks and gradients, the 8 groups of a window, the total; not all 38 groups


def test_a_gradient_that_is_not_finite_is_named(teacher, dev):
    def loss(logits, batch):
        return logits.sum(-1) * torch.where(batch.example_ids == 70, torch.inf, 1.0)

    with pytest.raises(FloatingPointError, match="the gradients of examples 65 to 96 of those that score are not fin"):
        mask_gradients(teacher, dev.eval_batches(16), [task_loss, loss])
    assert all(parameter.requires_grad for parameter in teacher.parameters())


def test_a_loss_that_no_mask_changes_is_logged(teacher, dev, caplog):
    with caplog.at_level("WARNING", logger="stark"):
        mask_gradients(teacher, dev.eval_batches(16), [task_loss])
        assert not caplog.messages
        mask_gradients(teacher, dev.eval_batches(16), [lambda logits, batch: 0 * logits.sum(-1)])
    [line] = caplog.messages
    assert "all gradients of a loss are 0" in line


def with_one_row_of_nan(folder: str, split: str, row: int) -> None:
    """Give a row of a split a word of its own, whose embedding is NaN."""
    path = Path("datasets/rte", f"{split}.tsv")
    lines = path.read_text().splitlines()
    columns = lines[row].split("\t")
    lines[row] = "\t".join([columns[0], "w999", *columns[2:]])
    path.write_text("\n".join(lines) + "\n")
    model = PrunableBert.from_pretrained(folder)
    model.bert.embeddings.word_embeddings.weight.data[1] = torch.nan  # [UNK]
    model.save_pretrained(folder)


@pytest.mark.parametrize("split", ["dev", "half"])
def test_one_row_of_nan_in_what_scores_ends_the_run_in_a_line(workplace, capsys, split):
    row = 1 + int(load_examples("rte", "datasets", "dev", load_tokenizer("teacher"), 40).halves()[0].places[-1])
    with_one_row_of_nan("teacher", "dev", row)
    for script, flags in (
        (run_pruning, ["--model_path", "teacher"]),
        (run_sparsification, ["--teacher_model_path", "teacher", "--student_model_path", "teacher"]),
    ):
        with pytest.raises(SystemExit) as stop:
            script.main([*flags, "--selection_split", split])
        assert stop.value.code == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(f"error: logits that are not numbers, first those of example {row} of the file ([nan")
    assert not list(Path("outputs").rglob("ckpt"))


def test_one_row_of_nan_in_the_test_set_is_no_class(workplace, capsys):
    with_one_row_of_nan("teacher", "test", 4)
    with pytest.raises(SystemExit) as stop:
        run_finetuning.main(["--model_path", "teacher", "--num_train_epochs", "1", "--do_test"])
    assert stop.value.code == 1
    assert "first those of example 4 of the file" in capsys.readouterr().err.splitlines()[-1]
    assert not list(Path("outputs").rglob("RTE.tsv"))


def test_padding_length_changes_no_score(teacher, dev):
    padded = replace(dev, pad_to=64)
    for ours, longer in zip(
        *(mask_gradients(teacher, data.eval_batches(16), [task_loss])[0] for data in (dev, padded)), strict=True
    ):
        torch.testing.assert_close(ours, longer, atol=1e-6, rtol=1e-4)


def test_scoring_leaves_weights_and_their_gradients_alone(teacher, dev):
    before = {name: parameter.clone() for name, parameter in teacher.named_parameters()}
    mask_gradients(teacher, dev.eval_batches(32), [task_loss])
    for name, parameter in teacher.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
        assert parameter.requires_grad


def test_scores_of_a_regression(dev):
    torch.manual_seed(0)
    model = PrunableBert(small_config(num_labels=1, vocab_size=106, max_position_embeddings=64))
    [gradients] = mask_gradients(model, dev.eval_batches(32), [lambda logits, batch: (logits.squeeze(-1) - 1) ** 2])
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
        self.labels, self.example_ids = labels, ids


def test_distillation_loss_by_hand():
    # half and half under the teacher, a quarter and three quarters under the student: -(ln 1/4 + ln 3/4) / 2
    teacher = torch.zeros(1, 2)
    student = torch.tensor([[0.0, math.log(3)]])
    batch = Labels(torch.tensor([0]), torch.tensor([0]))
    distance = math.log(16 / 3) / 2
    label = math.log(4)
    for loss in (
        student_loss(lambda _: teacher, 1.0, 0.25)(student, batch),
        teacher_loss(student, 1.0, 0.25)(teacher, batch),
    ):
        assert loss.item() == pytest.approx(0.25 * distance + 0.75 * label)
    # at temperature 2 the same distance comes from logits twice as large, and counts four times
    loss = distillation_loss(2 * student, teacher, batch, 2.0, 0.25)
    assert loss.item() == pytest.approx(0.25 * 4 * distance + 0.75 * math.log(10))


@pytest.mark.parametrize(("temperature", "alpha"), [(2.0, 0.5), (0.5, 0.1), (3.0, 0.8), (1.0, 1.0), (1.0, 0.0)])
def test_distillation_loss_equals_torchs_losses(temperature, alpha):
    torch.manual_seed(0)
    student = torch.randn(7, 3)
    teacher = torch.randn(7, 3)
    labels = torch.randint(3, (7,))
    batch = Labels(labels, torch.arange(7))
    log_student = (student / temperature).log_softmax(-1)
    target = (teacher / temperature).softmax(-1)
    # Kullback and Leibler's divergence leaves out the teacher's entropy, which has no gradient in the student
    soft = F.kl_div(log_student, target, reduction="none").sum(-1) + torch.distributions.Categorical(target).entropy()
    expected = alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student, labels, reduction="none")
    torch.testing.assert_close(distillation_loss(student, teacher, batch, temperature, alpha), expected)
    torch.testing.assert_close(student_loss(lambda _: teacher, temperature, alpha)(student, batch), expected)
    torch.testing.assert_close(teacher_loss(student, temperature, alpha)(teacher, batch), expected)


def test_the_paper_takes_temperature_2_and_one_half():
    student = torch.randn(3, 2)
    teacher = torch.randn(3, 2)
    batch = Labels(torch.tensor([0, 1, 1]), torch.arange(3))
    expected = distillation_loss(student, teacher, batch, 2.0, 0.5)
    assert torch.equal(student_loss(lambda _: teacher)(student, batch), expected)
    assert torch.equal(teacher_loss(student)(teacher, batch), expected)


def test_distillation_loss_of_a_regression_is_the_mean_of_squared_distances():
    student, teacher, batch = (
        torch.tensor([[1.0], [2.0]]),
        torch.tensor([[3.0], [2.0]]),
        Labels(torch.tensor([0.0, 5.0])),
    )
    assert distillation_loss(student, teacher, batch, 2.0, 0.5).tolist() == [2.5, 4.5]
    assert distillation_loss(student, teacher, batch, 2.0, 0.25).tolist() == [1.75, 6.75]
    assert task_loss(student, batch).tolist() == [1.0, 9.0]


def test_the_gradient_of_friendliness_runs_through_the_teacher_only():
    teacher = torch.tensor([[0.5, 2.0]], requires_grad=True)
    teacher_loss(torch.tensor([[1.0, -1.0]]))(teacher, Labels(torch.tensor([1]), torch.tensor([0]))).sum().backward()
    assert teacher.grad.abs().sum() > 0


def test_random_scores_depend_on_the_seed_alone(teacher):
    torch.rand(3)
    first, again, other = (random_scores(teacher, seed) for seed in (1, 1, 2))
    assert [tuple(score.shape) for score in first] == [(4, 4), (4, 128)]
    assert torch.equal(first.head, again.head)
    assert torch.equal(first.neuron, again.neuron)
    assert not torch.equal(first.neuron, other.neuron)


def test_the_magnitude_of_a_unit_is_the_norm_of_all_its_weights(teacher):
    scores = magnitudes(teacher)
    layer = teacher.layers[1]
    attention = layer.self_attention
    columns = slice(2 * attention.head_dim, 3 * attention.head_dim)
    weights = [linear.weight[columns] for linear in (attention.query, attention.key, attention.value)]
    weights.append(layer.attention_out.dense.weight[:, columns])
    assert scores.head[1, 2].item() == pytest.approx(sum(w.square().sum().item() for w in weights) ** 0.5)
    weights = [layer.ffn_in.weight[5], layer.output.dense.weight[:, 5]]
    assert scores.neuron[1, 5].item() == pytest.approx(sum(w.square().sum().item() for w in weights) ** 0.5)
