"""What a model says inside, layer by layer, for losses that compare a student with its teacher there.

    student_features, teacher_features = Features(student), Features(teacher)
    logits = student(*batch.inputs)  # from now on each forward pass leaves its features behind

B examples, T tokens, D hidden size, W = heads that are left * head size.
"""

import functools

import torch
from torch import Tensor, nn

from models.bert import PrunableBert


class Features:
    """The hidden states, queries, keys and values of a model's latest forward pass.

    hidden: L + 1 states (B, T, D), of the embeddings and of each layer.
    query, key, value: of each layer (B, T, W); None where no head is left.
    """

    def __init__(self, model: PrunableBert):
        """Watch the model from now on; its last layer then answers for all tokens. Not for compiled models."""
        layers = len(model.layers)
        self.heads: int = model.config.num_attention_heads  # before cutting
        self.hidden: list[Tensor] = [torch.empty(0)] * (layers + 1)
        self.query: list[Tensor | None] = [None] * layers
        self.key: list[Tensor | None] = [None] * layers
        self.value: list[Tensor | None] = [None] * layers
        model.every_token = True
        _keep_output(model.bert.embeddings, self.hidden, 0)
        for index, layer in enumerate(model.layers):
            _keep_output(layer, self.hidden, index + 1)
            for name in ("query", "key", "value"):
                _keep_output(getattr(layer.attention["self"], name), getattr(self, name), index)


def _keep_output(module: nn.Module, kept: list, index: int) -> None:
    """Put what the module says into kept[index] whenever it is called."""
    module.register_forward_hook(lambda _module, _inputs, output: kept.__setitem__(index, output))


def teacher_layer(layer: int, student_layers: int, teacher_layers: int) -> int:
    """The teacher's layer that one of the student's learns from: evenly spaced, the last from the last.

    Layers count from 1; 0 are the embeddings. As PKD-skip (arXiv:1908.09355) and TinyBERT (arXiv:1909.10351) do.
    """
    return round(layer * teacher_layers / student_layers)


def similarities(left: Tensor, right: Tensor, parts: int) -> Tensor:
    """Scaled products of all tokens' vectors with each other, part by part: (B, T, W) x 2 -> (B, parts, T, T).

    The W numbers of all heads together are split into parts of equal width, or of widths that differ by one, and the
    products are divided by the width's square root. Of an uncut model, as many parts as it has heads are its heads,
    and those of queries with keys its attention scores before the softmax. MiniLMv2 (arXiv:2012.15828) splits so, into
    more parts than heads; models with any numbers of heads can be compared like this, cut ones too.
    """
    width = left.shape[-1]
    left, right = left.float(), right.float()
    if width % parts == 0:
        left = left * (width // parts) ** -0.5
    else:
        columns, scale = _columns(width, parts, left.device)
        left = left.index_select(-1, columns) * scale
        right = right.index_select(-1, columns)
    left, right = (vectors.unflatten(-1, (parts, -1)).transpose(1, 2) for vectors in (left, right))
    return left @ right.transpose(2, 3)  # (B, parts, T, w) @ (B, parts, w, T)


@functools.cache
def _columns(width: int, parts: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which of W columns each part takes, and what products are divided by, as a factor: each (parts * widest part,).

    Narrow parts are filled up with column 0 times 0. Kept, so that the device gets them once.
    """
    split = torch.arange(width).tensor_split(parts)
    columns = nn.utils.rnn.pad_sequence(split, batch_first=True, padding_value=-1)  # (parts, the widest part)
    widths = torch.tensor([max(1, len(part)) for part in split])
    scale = torch.where(columns < 0, 0.0, widths[:, None] ** -0.5)
    return columns.clamp(min=0).flatten().to(device), scale.flatten().to(device)
