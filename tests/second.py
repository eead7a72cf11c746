"""A second implementation of the method on transformers' BERT and tokenizer, to test the flags against.

As plain as can be: whole batches, padded to one width; masks by hooks; schedules written out. Nothing of the project is
used, so that no fault can be on both sides.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

CLASSES = ["not_entailment", "entailment"]


class Rows:
    """The rows of a task's file, tokenised by transformers."""

    def __init__(self, path: Path, vocabulary: Path, max_length: int = 40):
        header, *lines = [line.split("\t") for line in path.read_text().splitlines()]
        first, second = header.index("sentence1"), header.index("sentence2")
        last = [line[-1] for line in lines] if header[-1] != "sentence2" else []
        self.labels = torch.tensor([CLASSES.index(x) if x in CLASSES else float(x) for x in last])
        self.inputs = BertTokenizerFast(vocab=str(vocabulary / "vocab.txt"))(
            [line[first] for line in lines],
            [line[second] for line in lines],
            truncation="longest_first",
            max_length=max_length,
            padding=True,
            return_tensors="pt",
        )

    def __getitem__(self, which) -> "Rows":
        part = object.__new__(Rows)
        part.labels = self.labels[which]
        part.inputs = {name: value[which] for name, value in self.inputs.items()}
        return part


def load(folder: Path, layers: list[int] | None = None, sparsity: int = 0) -> BertForSequenceClassification:
    """An uncut checkpoint as transformers' model, with these layers only, or cut at a sparsity by zeros."""
    settings = json.loads((folder / "config.json").read_text())
    config = BertConfig(**{**settings, "classifier_dropout": 0.0})
    names = {"cls.0": "bert.pooler.dense", "cls.3": "classifier"}
    state = load_file(folder / "model.safetensors")
    state = {names.get(key[:5], key[:5]) + key[5:]: value for key, value in state.items()}
    model = BertForSequenceClassification(config)
    model.load_state_dict(state)
    if layers is not None:
        model.bert.encoder.layer = torch.nn.ModuleList(model.bert.encoder.layer[index] for index in layers)
    if sparsity:
        cut(model, **settings["sparsity_map"][str(sparsity)])
    return model.eval()


@torch.no_grad()
def cut(model: BertForSequenceClassification, head: dict, neuron: dict) -> None:
    """Set the output weights of the last units of each layer to 0, neurons in multiples of 8."""
    size = model.config.hidden_size // model.config.num_attention_heads
    for index, layer in enumerate(model.bert.encoder.layer):
        heads = head.get(str(index), 0)
        neurons = 8 * round(neuron.get(str(index), 0) / 8)
        for matrix, gone in ((layer.attention.output.dense, heads * size), (layer.output.dense, neurons)):
            matrix.weight[:, matrix.in_features - gone :] = 0


def logits_of(model: BertForSequenceClassification, rows: Rows) -> Tensor:
    """Logits (N, C)."""
    return model(**rows.inputs).logits


@torch.no_grad()
def accuracy(model: BertForSequenceClassification, rows: Rows) -> float:
    """Share of the rows classified right."""
    return (logits_of(model, rows).argmax(1) == rows.labels).float().mean().item()


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Of each row: minus the label's log probability, or the squared error: (N, C), (N,) -> (N,)."""
    if logits.shape[1] == 1:
        return (logits[:, 0] - labels) ** 2
    return -logits.log_softmax(1)[torch.arange(len(labels)), labels.long()]


def distillation_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature=2.0, alpha=0.5) -> Tensor:
    """Hinton's: (N, C) x 2, (N,) -> (N,)."""
    if student.shape[1] == 1:
        soft = (student - teacher)[:, 0] ** 2
    else:
        target = (teacher / temperature).softmax(1)
        soft = temperature**2 * F.cross_entropy(student / temperature, target, reduction="none")
    return alpha * soft + (1 - alpha) * task_loss(student, labels)


def schedule(kind: str, update: int, updates: int, warmup: int) -> float:
    """Share of the peak learning rate at an update, which count from 0."""
    if kind == "constant":
        return 1.0
    if update < warmup:
        return update / warmup
    done = (update - warmup) / (updates - warmup)
    falling = 1 - done
    waving = (1 + math.cos(math.pi * done)) / 2
    shares = {"linear": falling, "polynomial": falling, "cosine": waving, "cosine_with_restarts": waving}
    return {**shares, "constant_with_warmup": 1.0}[kind]


def train(
    model: BertForSequenceClassification,
    rows: Rows,
    loss: Callable[[Tensor], Tensor],
    updates: int,
    learning_rate: float,
    weight_decay: float = 0.01,
    warmup: int = 2,
    max_grad_norm: float = 5.0,
    scheduler: str = "linear",
) -> float:
    """Make updates of AdamW, each over all rows; the mean loss over the updates."""
    matrices, vectors = ([p for p in model.parameters() if (p.ndim > 1) == wanted] for wanted in (True, False))
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, eps=1e-6)
    losses = []
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * schedule(scheduler, update, updates, warmup)
        losses.append(loss(logits_of(model, rows)).mean())
        optimizer.zero_grad()
        losses[-1].backward()
        norm = sum(p.grad.square().sum() for p in model.parameters()).sqrt()
        if max_grad_norm and norm > max_grad_norm:
            for parameter in model.parameters():
                parameter.grad *= max_grad_norm / norm
        optimizer.step()
    return torch.stack(losses).mean().item()


def weights_of(model: BertForSequenceClassification) -> Tensor:
    """All weights in one vector."""
    return torch.cat([model.get_parameter(name).detach().flatten() for name in sorted(dict(model.named_parameters()))])


def scores(model: BertForSequenceClassification, rows: Rows, loss: Callable) -> tuple[Tensor, Tensor]:
    """Scores of heads (L, H) and neurons (L, F): normalised sums over groups of 32 rows of |d mean loss / d mask|."""
    layers, config = model.bert.encoder.layer, model.config
    widths = (config.num_attention_heads, config.intermediate_size)
    masks = [torch.ones(len(layers), width, requires_grad=True) for width in widths]
    handles = []
    for index, layer in enumerate(layers):
        for matrix, mask in zip((layer.attention.output.dense, layer.output.dense), masks, strict=True):

            def multiply(_, inputs, row=mask[index], width=matrix.in_features):
                return (inputs[0] * row.repeat_interleave(width // len(row)),)

            handles.append(matrix.register_forward_pre_hook(multiply))
    sums = [torch.zeros_like(mask) for mask in masks]
    for start in range(0, len(rows.labels), 32):
        group = slice(start, start + 32)
        value = loss(logits_of(model, rows[group]), group).mean()
        for total, gradient in zip(sums, torch.autograd.grad(value, masks), strict=True):
            total += gradient.abs()
    for handle in handles:
        handle.remove()
    return tuple(total / (total.norm(dim=1, keepdim=True) + 1e-7) for total in sums)
