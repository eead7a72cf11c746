"""Mask gradients -> expressive, friendly and knowledgeable scores of every head and neuron.

expressive, friendly = mask_gradients(teacher, batches, [task_loss, distance_to(student_logits)])
knowledgeable = interpolate(normalise(expressive), normalise(friendly), lam)
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from models.losses import Loss
from models.units import CheckpointError, Units

GROUP = 32  # examples whose gradients are averaged before the absolute value: the paper's batch size in scoring


def interpolate(expressive: Units, friendly: Units, lam: float) -> Units:
    """The knowledgeable score: lam * expressive + (1 - lam) * friendly; lam = 1 is the expressive score itself."""
    return Units(*(lam * e + (1 - lam) * f for e, f in zip(expressive, friendly, strict=True)))


def random_scores(model: nn.Module, seed: int) -> Units:
    """Uniform scores, (L, H) and (L, F), from the seed alone: the pilot study of the paper cuts at random."""
    config, generator = model.config, torch.Generator().manual_seed(seed)
    widths = (config.num_attention_heads, config.intermediate_size)
    return Units(*(torch.rand(config.num_hidden_layers, width, generator=generator) for width in widths))


def magnitudes(model: nn.Module) -> Units:
    """L2 norm of all weights of each head, (L, H), and neuron, (L, F): a score without data."""
    heads, neurons = [], []
    for layer in model.layers:
        attention, output = layer.attention["self"], layer.attention["output"].dense.weight
        rows = torch.cat([attention.query.weight, attention.key.weight, attention.value.weight, output.t()], dim=1)
        heads.append(rows.detach().unflatten(0, (attention.heads, attention.size)).norm(dim=(1, 2)))
        incoming, outgoing = layer.intermediate["dense"].weight, layer.output.dense.weight
        neurons.append(torch.cat([incoming, outgoing.t()], dim=1).detach().norm(dim=1))
    return Units(torch.stack(heads), torch.stack(neurons))


def normalise(scores: Units) -> Units:
    """Divide by the L2 norm over the units of a layer, heads and neurons apart: layers become comparable."""
    return Units(*(score / (score.norm(dim=-1, keepdim=True) + 1e-7) for score in scores))


def check_uncut(model: nn.Module) -> None:
    """Raise CheckpointError if units are missing that would have to be scored."""
    if (sparsity := getattr(model.config, "sparsity", "0")) != "0":
        raise CheckpointError(f"{model.config.name_or_path}: cut at {sparsity} %, expected an uncut model to score")


def mask_gradients(
    model: nn.Module, batches: Iterable[Any], losses: Sequence[Loss], group_size: int = GROUP
) -> list[Units]:
    """For each loss, the sum over groups of examples of |d mean loss / d mask| at mask = 1, in eval mode.

    A group is `group_size` examples in file order. Every example has masks of its own, so that its gradient is known
    apart, and gradients add up by group before the absolute value: the batches may hold the examples in any order
    and grouping. Weights need no gradient here. Michel et al. 2019, eq. 1, over batches as the paper's code does it.

    Args:
        model: called as model(*batch.inputs, head_mask, neuron_mask); uncut.
        batches: each has `inputs`, `ids` (B,), the places in the file from 0, and what the losses need.
        losses: functions of (logits, batch) -> (B,).
        group_size: examples; the scores depend on it, 32 is the paper's.

    Returns:
        One pair (L, H), (L, F) per loss.

    Raises:
        CheckpointError: the model is cut, so that it has no unit left for some of the masks.
    """
    check_uncut(model)
    config = model.config
    shapes = [(config.num_hidden_layers, width) for width in (config.num_attention_heads, config.intermediate_size)]
    sums: list[dict[int, list]] = [{} for _ in losses]
    counts: dict[int, int] = {}
    was_trainable = [parameter.requires_grad for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    for batch in tqdm(batches, unit="batch", leave=False, delay=3, desc="scoring"):
        masks = [torch.ones(len(batch.ids), *shape, device=batch.ids.device, requires_grad=True) for shape in shapes]
        logits = model(*batch.inputs, *masks)
        groups, members = torch.unique(batch.ids // group_size, return_inverse=True)
        for group, count in zip(groups.tolist(), torch.bincount(members).tolist(), strict=True):
            counts[group] = counts.get(group, 0) + count
        for total, loss in zip(sums, losses, strict=True):
            gradients = torch.autograd.grad(loss(logits, batch).sum(), masks, retain_graph=loss is not losses[-1])
            _add_by_group(total, groups.tolist(), members, gradients)
    for parameter, trainable in zip(model.parameters(), was_trainable, strict=True):
        parameter.requires_grad_(trainable)
    return [
        Units(*(sum(total[group][kind].abs() / counts[group] for group in sorted(total)) for kind in range(2)))
        for total in sums
    ]


def save_scores(folder: Path, **scores: Units) -> None:
    """Write scores.safetensors: head_<name> (L, H) and neuron_<name> (L, F) for each score, in the units' old order."""
    tensors = {f"{kind}_{name}": getattr(score, kind) for name, score in scores.items() for kind in Units._fields}
    save_file(
        {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()},
        folder / "scores.safetensors",
    )


def group_means(losses: Tensor, group_size: int = GROUP) -> list[float]:
    """The mean loss of each group of examples in file order: (N,) -> one number per group."""
    return [group.mean().item() for group in losses.split(group_size)]


def _add_by_group(total: dict[int, list], groups: list[int], members: Tensor, gradients: Sequence) -> None:
    """Add the examples' gradients, (B, L, H) and (B, L, F), to those of their groups."""
    by_group = [
        torch.zeros(len(groups), *gradient.shape[1:], device=gradient.device).index_add_(0, members, gradient)
        for gradient in gradients
    ]
    for index, group in enumerate(groups):
        added = [gradient[index] for gradient in by_group]
        total[group] = [a + b for a, b in zip(total[group], added, strict=True)] if group in total else added
