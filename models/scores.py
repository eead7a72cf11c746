"""Mask gradients -> expressive, friendly and knowledgeable scores of every head and neuron.

expressive, friendly = mask_gradients(teacher, batches, [task_loss, teacher_loss(student_logits)])
knowledgeable = interpolate(normalise(expressive), normalise(friendly), lam)
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.losses import Loss
from models.units import CheckpointError, Units, sparsity_of

logger = logging.getLogger("stark")
GROUP = 32  # examples whose gradients are averaged before the absolute value: the paper's batch size in scoring
WINDOW = 16 * GROUP  # examples in file order within which batches of similar lengths still close every group


def interpolate(expressive: Units, friendly: Units, lam: float) -> Units:
    """The knowledgeable score: lam * expressive + (1 - lam) * friendly; lam = 1 is the expressive score itself."""
    return expressive.map(lambda e, f: lam * e + (1 - lam) * f, friendly)


def all_scores(
    model: nn.Module, expressive: Units, friendly: Units, lam: float, chosen: str, seed: int
) -> dict[str, Units]:
    """The scores that units can be sorted by, by name: the three that gradients give, and the chosen one.

    Args:
        model: the model whose units are scored.
        expressive, friendly: normalised scores.
        lam: share of expressiveness in the knowledgeable score.
        chosen: one of the three, "random" or "magnitude".
        seed: of the random scores.
    """
    scores = {"expressive": expressive, "friendly": friendly, "knowledgeable": interpolate(expressive, friendly, lam)}
    if chosen == "random":
        scores["random"] = random_scores(model, seed)
    if chosen == "magnitude":
        scores["magnitude"] = normalise(magnitudes(model))
    return scores


def random_scores(model: nn.Module, seed: int) -> Units:
    """Uniform scores, (L, H) and (L, F), from the seed alone: the pilot study of the paper cuts at random."""
    config = model.config
    generator = torch.Generator().manual_seed(seed)
    widths = (config.num_attention_heads, config.intermediate_size)
    return Units(*(torch.rand(config.num_hidden_layers, width, generator=generator) for width in widths))


def magnitudes(model: nn.Module) -> Units:
    """L2 norm of all weights of each head, (L, H), and neuron, (L, F): a score without data."""
    weights = [layer.unit_weights() for layer in model.layers]
    heads, neurons = (
        torch.stack([units.detach().norm(dim=1) for units in kind]) for kind in zip(*weights, strict=True)
    )
    return Units(heads, neurons)


def normalise(scores: Units) -> Units:
    """Divide by the L2 norm over the units of a layer, heads and neurons apart: layers become comparable."""
    return scores.map(lambda score: score / (score.norm(dim=-1, keepdim=True) + 1e-7))


def check_uncut(model: nn.Module) -> None:
    """Raise CheckpointError if the model is cut: the units that are gone could not be scored."""
    if sparsity := sparsity_of(model.config):
        raise CheckpointError(f"{model.name_or_path}: cut at {sparsity} %, expected an uncut model to score")


def mask_gradients(
    model: nn.Module, batches: Iterable[Any], loss_fns: Sequence[Loss], group_size: int = GROUP
) -> list[Units]:
    """For each loss, the sum over groups of examples of |d mean loss / d mask| at mask = 1, in eval mode.

    A group is `group_size` examples in file order. Every example has masks of its own, so that its gradient is known
    apart, and gradients add up by group before the absolute value: the batches may hold the examples in any order
    and grouping. Weights need no gradient here. Michel et al. 2019, eq. 1, over batches as the paper's code does it.

    Memory is that of one batch and of the groups that are open: they are closed whenever all examples of all groups
    begun so far have been seen. Batches within windows of whole groups thus need the same for any number of examples.

    Args:
        model: its forward is called as forward(*batch.inputs, head_mask, neuron_mask); uncut. Compiled code is left
            aside: a compiled backward pass frees what the next loss's needs.
        batches: each has `inputs`, `example_ids_on_cpu` (B,), the places in the file from 0, and what the losses need.
        loss_fns: functions of (logits, batch) -> (B,).
        group_size: examples; the scores depend on it, 32 is the paper's.

    Returns:
        One pair (L, H), (L, F) per loss.

    Raises:
        CheckpointError: the model is cut, so that it has no unit left for some of the masks.
        FloatingPointError: a gradient is not finite.
    """
    check_uncut(model)
    config = model.config
    shapes = [(config.num_hidden_layers, width) for width in (config.num_attention_heads, config.intermediate_size)]
    sums = GroupSums([shape for _ in loss_fns for shape in shapes], group_size, model.device)
    # eval mode, and no gradient but the masks'
    was_trainable = [parameter.requires_grad for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    for batch in batches:
        # every example has masks of its own, all 1: (B, L, H) and (B, L, F)
        masks = [
            torch.ones(len(batch.example_ids_on_cpu), *shape, device=model.device, requires_grad=True)
            for shape in shapes
        ]
        logits = model.forward(*batch.inputs, *masks)
        # the gradients of each loss at these masks, one forward pass for all losses
        gradients = []  # (B, L, H) and (B, L, F) for each loss
        for loss_fn in loss_fns:
            retain = loss_fn is not loss_fns[-1]
            gradients += torch.autograd.grad(loss_fn(logits, batch).sum(), masks, retain_graph=retain)
        sums.add(gradients, batch.example_ids_on_cpu)
    for parameter, trainable in zip(model.parameters(), was_trainable, strict=True):
        parameter.requires_grad_(trainable)
    # a pair of heads and neurons for each loss
    totals = sums.totals()
    units = [Units(*totals[start : start + 2]) for start in range(0, len(totals), 2)]
    if not all(any(kind.any() for kind in pair) for pair in units):
        logger.warning("all gradients of a loss are 0, so that its scores leave units in the order they are in")
    return units


class GroupSums:
    """For several tensors at once, the sum over groups of |mean over a group|, with the examples in any order."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], group_size: int, device: torch.device):
        """Args: the shape of each tensor for one example; the examples in a group; the tensors' device."""
        self.group_size, self.device = group_size, device
        self.closed = [torch.zeros(shape, device=device) for shape in shapes]
        self.open = [torch.zeros(0, *shape, device=device) for shape in shapes]  # one row for each open group
        self.counts: dict[int, int] = {}  # open group -> examples seen of it, in the order of the rows
        self.finite: list[Tensor] = []  # for each closed group; on the device, read once at the end
        self.order: list[int] = []  # the closed groups

    def add(self, tensors: Sequence[Tensor], example_ids: Tensor) -> None:
        """Add each tensor (B, ...) to the sums of its examples' groups; example_ids (B,) are on the CPU."""
        groups = (example_ids // self.group_size).tolist()
        for group in groups:
            self.counts[group] = self.counts.get(group, 0) + 1
        rows = {group: row for row, group in enumerate(self.counts)}
        index = torch.tensor([rows[group] for group in groups]).to(self.device, non_blocking=True)
        for number, tensor in enumerate(tensors):
            # a row of zeros for each group that begins here
            begun = len(rows) - len(self.open[number])
            if begun:
                new = tensor.new_zeros(begun, *tensor.shape[1:])
                self.open[number] = torch.cat([self.open[number], new])
            self.open[number].index_add_(0, index, tensor)
        if all(count == self.group_size for count in self.counts.values()):
            self._close()

    def totals(self) -> list[Tensor]:
        """The sum over all groups of each tensor; the last group may be short.

        Raises:
            FloatingPointError: a sum is not finite.
        """
        if self.counts:
            self._close()
        if self.finite:
            finite = torch.cat(self.finite).tolist()
            if not all(finite):
                first = self.order[finite.index(False)] * self.group_size
                raise FloatingPointError(
                    f"the gradients of examples {first + 1} to {first + self.group_size} of those that score "
                    "are not finite"
                )
        return self.closed

    def _close(self) -> None:
        """Add |mean| of each open group to the sums; no group is open afterwards."""
        counts = torch.tensor([*self.counts.values()], dtype=torch.float32).to(self.device, non_blocking=True)
        finite = []
        for number, sums in enumerate(self.open):
            means = sums.flatten(1).abs() / counts[:, None]
            finite.append(means.isfinite().all(1))
            self.closed[number] += means.sum(0).view_as(self.closed[number])
            self.open[number] = sums.new_zeros(0, *sums.shape[1:])  # a view of none of its rows would keep them all
        self.finite.append(torch.stack(finite).all(0))
        self.order += self.counts
        self.counts = {}


def save_scores(folder: Path, **scores: Units) -> None:
    """Write scores.safetensors: head_<name> (L, H) and neuron_<name> (L, F) for each score, in the units' old order."""
    tensors = {f"{kind}_{name}": getattr(score, kind) for name, score in scores.items() for kind in Units._fields}
    save_file(
        {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()},
        folder / "scores.safetensors",
    )


def group_means(losses: Tensor, group_size: int = GROUP) -> list[float]:
    """The mean loss of each group of examples in file order: (N,) -> one number per group."""
    return torch.stack([group.mean() for group in losses.split(group_size)]).tolist()
