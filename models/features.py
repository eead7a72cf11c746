"""What a model says inside, layer by layer, for losses that compare a student with its teacher there.

    student_features, teacher_features = Features(student), Features(teacher)
    logits = student(*batch.inputs)  # from now on each forward pass leaves its features behind

B examples, T tokens, D hidden size, W = heads that are left * head size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
    left, right = (_split(vectors.float(), parts) for vectors in (left, right))
    return left @ right.transpose(2, 3)


def _split(vectors: Tensor, parts: int) -> Tensor:  # (B, T, W) -> (B, parts, T, the widest part)
    split = vectors.tensor_split(parts, dim=-1)
    widest = split[0].shape[-1]
    return torch.stack(
        [F.pad(part, (0, widest - part.shape[-1])) / max(1, part.shape[-1]) ** 0.25 for part in split], dim=1
    )
