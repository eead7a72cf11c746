"""Statistics of scripts/report.py: tests, intervals and sizes of paired comparisons, as functions of numbers alone.

compare({1: 61.2, 2: 60.4}, {1: 60.8, 2: 60.1}).difference    # 0.35, paired over seeds
sign_flip_p([0.4, 1.1, 0.3])                                  # 0.25
counts = row_counts(277)                                      # (B, N), how often each resample draws each row
ours, theirs = (resampled_metric("acc", p, labels, counts) for p in (predictions, others))  # (B,) each
multi_bootstrap(np.stack([ours - theirs, ...], axis=1))       # (B, S), a column for each seed
"""

import functools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

FLIPPED = 20  # differences up to which all flips of their signs are computed, which are 2 ^ 20
RESAMPLES = 1000  # B, of rows and seeds
MIN_SEEDS = 3  # from which on seeds are resampled
CHUNK = 2_000_000  # resampled rows held at once
ROUNDING = 1e-9  # of differences of metrics x 100


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


class Comparison(NamedTuple):
    """A paired comparison of two methods over the same seeds."""

    difference: float  # mean
    low: float | None  # of the 95 % interval of Student's t; None of a single seed and of differences `all_equal`
    high: float | None
    better: int  # seeds in which the first was
    worse: int
    differences: tuple[float, ...]  # by ascending seed

    @property
    def seeds(self) -> int:
        """How many there are."""
        return len(self.differences)

    @property
    def is_beyond_noise(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and not self.low <= 0 <= self.high


class MultiBootstrap(NamedTuple):
    """A difference when both seeds and rows are resampled."""

    interval: Interval  # between the percentiles
    p: float  # two-sided


def compare(ours: dict[int, float], theirs: dict[int, float]) -> Comparison | None:
    """Paired over the seeds that both have: seed -> value; None if there is none."""
    differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    if not differences:
        return None
    mean, low, high = statistics.fmean(differences), None, None
    if len(differences) > 1 and not all_equal(differences):
        error = stats.sem(differences)
        low, high = (float(end) for end in stats.t.interval(0.95, len(differences) - 1, mean, error))
    better, worse = sum(d > ROUNDING for d in differences), sum(d < -ROUNDING for d in differences)
    return Comparison(mean, low, high, better, worse, tuple(differences))


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p of the sign-flip test of paired differences (S,): the share of flips whose mean is as far from 0.

    If the pairs do not differ, each difference is as likely with the other sign (Fisher, The Design of Experiments,
    1935, section 21). All 2 ^ S flips for up to FLIPPED differences, else 99,999 random ones and the signs found.
    """
    found = np.asarray(differences, float)
    if len(found) > FLIPPED:
        generator = np.random.default_rng(0)
        test = stats.permutation_test((found,), np.mean, permutation_type="samples", n_resamples=99_999, rng=generator)
        return float(test.pvalue)
    sums = np.zeros(1)
    for difference in found:
        sums = np.concatenate([sums + difference, sums - difference])
    rounding = 1e-9 * np.abs(found).sum()
    return float(np.mean(np.abs(sums) >= abs(found.sum()) - rounding))


def all_equal(differences: Sequence[float] | np.ndarray) -> bool:
    """Whether differences are the same but for rounding, as those of equally many rows are."""
    return bool(np.ptp(differences) <= ROUNDING * max(1, np.abs(differences).max()))


def unresampled(differences: Sequence[float] | np.ndarray) -> str | None:
    """Why a bootstrap of these differences, (S,) or (B, S), would say nothing, in words; None if it says something."""
    if np.shape(differences)[-1] < MIN_SEEDS:
        return f"under {MIN_SEEDS} seeds"
    return "all equal" if all_equal(differences) else None


def bca_interval(differences: Sequence[float]) -> Interval | None:
    """95 % interval of the mean difference (S,): bias-corrected, accelerated bootstrap (Efron, JASA 82, 1987).

    None if `unresampled` says why.
    """
    if unresampled(differences):
        return None
    sample = (np.asarray(differences, float),)
    found = stats.bootstrap(sample, np.mean, method="BCa", n_resamples=9999, rng=np.random.default_rng(0))
    return Interval(*map(float, found.confidence_interval))


def holm(p_values: Sequence[float]) -> list[float]:
    """p of several tests (M,), corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    order = np.argsort(p_values)
    steps = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected.tolist()


def seeds_needed(deviation: float, difference: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """The fewest seeds n with which a two-sided paired t-test finds a true difference with this power.

    The power is P(F > t^2), with t the (1 - alpha / 2) quantile of Student's t with n - 1 degrees of freedom, and F
    noncentral F with 1 and n - 1 degrees and noncentrality n (difference / deviation)^2 (Cohen, Statistical Power
    Analysis for the Behavioral Sciences, 1988, chapter 2). It starts from the normal distribution's n, which is lower.

    Args:
        deviation: standard deviation of the paired differences; if it is 0 but for rounding, None is returned.
        difference: in the same unit.
    """
    if deviation <= 1e-6 * difference:
        return None
    effect = difference / deviation
    seeds = max(2, math.ceil(((stats.norm.isf(alpha / 2) + stats.norm.isf(1 - power)) / effect) ** 2))
    while True:
        critical = stats.t.isf(alpha / 2, seeds - 1) ** 2
        if stats.ncf.sf(critical, 1, seeds - 1, seeds * effect**2) >= power:
            return seeds
        seeds += 1


def multi_bootstrap(differences: np.ndarray) -> MultiBootstrap:
    """The multi-bootstrap of paired differences (Sellam et al., The MultiBERTs, ICLR 2022, arXiv 2106.16163).

    Seeds and rows are resampled independently, and both are shared by the two sides. Their code's p is one-sided, the
    side being chosen before: the share of resampled differences on the other side of 0 or at it, at least 1 / B. This
    one is two-sided, twice the smaller share.

    Args:
        differences: (B, S), each seed's difference of metrics on each resample of the rows.
    """
    resamples, seeds = differences.shape
    drawn = np.random.default_rng(1).integers(seeds, size=(resamples, seeds))
    means = np.take_along_axis(differences, drawn, axis=1).mean(1)  # (B,)
    one_sided = min(np.mean(means <= 0), np.mean(means >= 0))
    interval = Interval(*map(float, np.quantile(means, [0.025, 0.975])))
    return MultiBootstrap(interval, float(min(1, 2 * max(one_sided, 1 / resamples))))


@functools.lru_cache(maxsize=1)  # the rows of one task at a time
def row_counts(rows: int, resamples: int = RESAMPLES) -> np.ndarray:
    """How often each resample draws each of N rows, with replacement: (B, N); the same for the same N."""
    generator = np.random.default_rng(0)
    counts = [np.bincount(generator.integers(rows, size=rows), minlength=rows) for _ in range(resamples)]
    return np.stack([count.astype(np.uint16) for count in counts])


def resampled_metric(metric: str, predictions: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """A metric on resampled rows, (B,), as utils.metrics computes it.

    Args:
        metric: a key of utils.metrics.METRICS, and of the number that is taken of what that computes.
        predictions: (N,), class ids or scores.
        labels: (N,), the same.
        counts: (B, N), how often each resample draws each row.
    """
    size = max(1, CHUNK // len(labels))
    function = _correlations if metric == "corr" else functools.partial(_of_classes, OF_CLASSES[metric])
    predictions, labels = (column.astype(float) if metric == "corr" else column for column in (predictions, labels))
    parts = [function(predictions, labels, counts[i : i + size]) for i in range(0, len(counts), size)]
    return np.concatenate(parts)


def _of_classes(metric: Callable, predictions: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """A metric (B,) that follows from how often each class is right, predicted and true, which are (B, C)."""
    classes = np.arange(max(2, 1 + predictions.max(), 1 + labels.max()))
    predicted, true = (column[:, None] == classes for column in (predictions, labels))  # (N, C)
    rows = np.hstack([predicted & true, predicted, true]).astype(np.float32)  # sums of ones are exact
    sums = (counts.astype(np.float32) @ rows).astype(float)  # (B, 3 C)
    return metric(*np.split(sums, 3, axis=1))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Above / below, 0 where below is 0."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _accuracy(right: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    return right.sum(1) / true.sum(1)


def _f1(right: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Of class 1."""
    return _ratio(2 * right, predicted + true)[:, 1]


def _accuracy_and_f1(*sums: np.ndarray) -> np.ndarray:
    return (_accuracy(*sums) + _f1(*sums)) / 2


def _macro_f1(right: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The mean over classes that occur."""
    return _ratio(2 * right, predicted + true).sum(1) / (predicted + true > 0).sum(1)


def _matthews(right: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Gorodkin's R of any number of classes."""
    rows = true.sum(1)
    covariance = right.sum(1) * rows - (predicted * true).sum(1)
    variances = (rows**2 - (column**2).sum(1) for column in (predicted, true))
    return _ratio(covariance, np.sqrt(math.prod(variances)))


OF_CLASSES = {
    "acc": _accuracy,
    "acc_and_f1": _accuracy_and_f1,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews_corrcoef": _matthews,
}


def _correlations(predictions: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean of Pearson's and Spearman's correlation, (B,); both 0 where a side is constant."""
    counts = np.ascontiguousarray(counts.T, float)  # (N, B), whose lines are picked and summed fast
    pearson = _correlation(predictions[:, None], labels[:, None], counts)
    return (pearson + _correlation(_ranks(predictions, counts), _ranks(labels, counts), counts)) / 2


def _correlation(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson's, (B,), of rows that occur so often (N, B); x and y are (N, 1) or (N, B)."""
    rows = counts.sum(0)
    rounding = (1e-24 * rows * np.abs(values).max() ** 2 for values in (x, y))  # what is left of equal values
    x, y = (values - (counts * values).sum(0) / rows for values in (x, y))
    weighted = counts * x
    xx, xy, yy = (weighted * x).sum(0), (weighted * y).sum(0), (counts * y * y).sum(0)
    xx, yy = (np.where(square > least, square, 0) for square, least in zip((xx, yy), rounding, strict=True))
    return _ratio(xy, np.sqrt(xx * yy))


def _ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Ranks (N, B) of values (N,) among rows that occur so often (N, B), the mean rank where they are equal."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    in_order = counts[np.argsort(group, kind="stable")]
    there = np.add.reduceat(in_order, np.cumsum(sizes) - sizes)  # (distinct values, B)
    below = np.cumsum(there, axis=0) - there
    return (below + (there + 1) / 2)[group]
