"""MPNet's table of attention biases by the distance between two tokens.

bias = RelativeBias(32, 12)(tokens=50)   # (12, 50, 50), added to the attention scores
"""

import math

import torch
from torch import Tensor

from models.encoder import Embedding


class RelativeBias(Embedding):
    """A number for each head and bucket of distances between two tokens, (buckets, H), shared by all layers: MPNet's.

    Half of the buckets are for keys that come after the query. Of each half, the first half of the buckets hold one
    distance each, the widths of the others grow by equal factors up to FARTHEST tokens, as in T5 (arXiv:1910.10683,
    section 2.1). Hugging Face's class uses BUCKETS, however many the table has.
    """

    BUCKETS = 32
    FARTHEST = 128

    def forward(self, tokens: int) -> Tensor:
        """What is added to the attention scores of so many tokens: (H, T, T), a row for each query."""
        position = torch.arange(tokens, device=self.weight.device)
        distance = position - position[:, None]  # (T, T)
        half = self.BUCKETS // 2
        near = half // 2
        # one bucket per distance up to near, then logarithmic
        far = distance.abs().clamp(min=1).float().div(near).log().div(math.log(self.FARTHEST / near))
        far = (near + (far * (half - near)).long()).clamp(max=half - 1)
        bucket = torch.where(distance.abs() < near, distance.abs(), far) + half * (distance > 0)
        return super().forward(bucket).permute(2, 0, 1)  # (T, T, H) -> (H, T, T)
