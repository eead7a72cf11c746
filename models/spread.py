"""A teacher's logits, smoothed or sharpened until they are spread as widely as another's.

    matched, factor = match_spread(dense_logits, sparse_logits, temperature=2.0)

A student of the matched logits has the dense teacher's knowledge with the sparse one's spread: where it learns less
than the sparse teacher's student, knowledge makes the difference; where it learns as much, smoothing alone may.
"""

import math

from torch import Tensor
from torch.nn import functional as F

from models.units import CheckpointError

LARGEST = math.log(1000.0)  # of the factors that are looked for, and its inverse the smallest


def match_spread(logits: Tensor, like: Tensor, temperature: float) -> tuple[Tensor, float]:
    """Logits (N, C) with the spread of other logits (N, C) of the same examples, and the factor that divides them.

    Classification takes the factor at which the mean entropy of softmax(logits / (factor * temperature)) is that of
    softmax(like / temperature), which the student learns; every example keeps its class. In regression (C = 1) the
    distances from the mean are divided, so that the standard deviations are equal.

    Args:
        temperature: of the distillation loss.

    Raises:
        CheckpointError: no factor from 0.001 to 1000 gives that entropy, or one of the teachers scores all examples
            alike.
    """
    if logits.shape[-1] == 1:
        deviation, wanted = logits.std().item(), like.std().item()
        if not deviation * wanted > 0:
            raise CheckpointError("a teacher scores all examples alike, expected scores with a spread")
        factor = deviation / wanted
        return logits.mean() + (logits - logits.mean()) / factor, factor

    from scipy.optimize import brentq  # imported here: it takes a while, which --help does not wait for

    wanted = mean_entropy(like / temperature)

    def excess(log_factor: float) -> float:
        """By how much the entropy is too large; it grows with the factor."""
        return mean_entropy(logits / (math.exp(log_factor) * temperature)) - wanted

    if excess(-LARGEST) > 0 or excess(LARGEST) < 0:
        raise CheckpointError(f"no factor from 0.001 to 1000 gives logits the other teacher's entropy, {wanted:.4f}")
    factor = math.exp(brentq(excess, -LARGEST, LARGEST))
    return logits / factor, factor


def mean_entropy(logits: Tensor) -> float:
    """Mean over the examples of the entropy (nats) of softmax(logits): (N, C) -> one number."""
    log_p = F.log_softmax(logits.double(), dim=-1)
    return -(log_p.exp() * log_p).sum(-1).mean().item()
