"""Tests, intervals and sizes of paired comparisons against scipy, utils.metrics and numbers worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from scripts import report_statistics as statistic
from utils.metrics import METRICS

DIFFERENCES = ([0.4, 1.1, -0.3, 0.9, 2.0], [1.0, 1.0, -1.0, 0.0], [3.0, -3.0], [0.0, 0.0, 0.0], [-0.1] * 7)


@pytest.mark.parametrize("differences", DIFFERENCES)
def test_the_sign_flip_test_is_scipys_permutation_test(differences):
    expected = stats.permutation_test((differences,), np.mean, permutation_type="samples").pvalue
    assert statistic.sign_flip_p(differences) == pytest.approx(expected)


def test_all_flips_of_twenty_differences_are_computed_and_of_more_a_sample():
    # whole numbers, so that the share follows from counting sums: dynamic programming over them
    differences = np.arange(1, 21)
    ways = np.zeros(421)  # place 210 + sum
    ways[210] = 1
    for difference in differences:
        ways = np.roll(ways, difference) + np.roll(ways, -difference)
    observed = differences.copy()
    observed[[2, 4, 6, 10, 13, 18]] *= -1
    extreme = abs(observed.sum())
    expected = (ways[210 + extreme :].sum() + ways[: 211 - extreme].sum()) / 2**20
    assert statistic.sign_flip_p(observed) == pytest.approx(expected, rel=1e-12)
    assert statistic.sign_flip_p([*observed, 0.0]) == pytest.approx(expected, abs=0.01)
    assert statistic.sign_flip_p([2.0]) == 1


def test_the_bca_interval_is_scipys():
    sample = np.array([0.4, 0.1, -0.3, 0.3, 2.0, 0.1])
    rng = np.random.default_rng(3)
    expected = stats.bootstrap((sample,), np.mean, method="BCa", n_resamples=20_000, rng=rng).confidence_interval
    found = statistic.bca_interval(sample)
    assert found == pytest.approx(tuple(expected), abs=0.07)
    percentile = stats.bootstrap((sample,), np.mean, method="percentile", n_resamples=20_000, rng=rng)
    assert found.high > percentile.confidence_interval.high + 0.1  # longer on the side of the outlier
    assert statistic.bca_interval(sample) == found


@pytest.mark.parametrize(
    ("differences", "reason"),
    [
        ([1.0, 2.0], "under 3 seeds"),
        ([0.1 + 0.2, 0.3, 0.3], "all equal"),
        ([1e3 + 1e-7, 1e3, 1e3], "all equal"),
        ([0.0] * 4, "all equal"),
    ],
)
def test_what_a_bootstrap_says_nothing_of_is_said_in_words(differences, reason):
    assert statistic.unresampled(differences) == reason
    assert statistic.bca_interval(differences) is None
    assert statistic.unresampled([0.0, 0.0, 1.0]) is None
    assert np.isfinite(statistic.bca_interval([0.0, 0.0, 1.0])).all()


def test_holms_correction_by_hand():
    # 0.005 x 4, 0.01 x 3, 0.03 x 2; then 0.04 x 1, which may not be below the one before
    assert statistic.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistic.holm([0.6, 0.5, 0.04]) == pytest.approx([1, 1, 0.12])
    assert statistic.holm([0.25]) == [0.25]


@pytest.mark.parametrize(("effect", "seeds"), [(0.1, 787), (0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_needed_are_those_of_tables_of_the_paired_t_test(effect, seeds):
    assert statistic.seeds_needed(0.5 / effect, 0.5) == seeds


def test_seeds_needed_have_the_power_and_one_less_has_not():
    seeds = statistic.seeds_needed(1.3, 0.5)
    for count in (seeds, seeds - 1):
        critical, shift = stats.t.ppf(0.975, count - 1), 0.5 / 1.3 * count**0.5
        power = stats.nct.sf(critical, count - 1, shift) + stats.nct.cdf(-critical, count - 1, shift)
        assert (power >= 0.8) == (count == seeds)
    assert statistic.seeds_needed(1e-15, 0.5) is None
    assert statistic.seeds_needed(1e-5, 0.5) == 2
    assert statistic.seeds_needed(1e-5, 500) is None


def drawn(metric: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels, right in two of three rows."""
    rng = np.random.default_rng(len(metric))
    if metric == "corr":
        labels = rng.integers(0, 6, rows).astype(np.float32)
        return (labels + rng.integers(-3, 3, rows) / 2).astype(np.float32), labels
    classes = 2 if metric in ("f1", "acc_and_f1") else 3
    labels = rng.integers(classes, size=rows)
    return np.where(rng.random(rows) < 2 / 3, labels, rng.integers(classes, size=rows)).astype(np.int16), labels


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("rows", [2, 40])
def test_a_metric_of_resampled_rows_is_that_of_utils_metrics(metric, rows, monkeypatch):
    """Of two rows many resamples hold a single class, or equal scores."""
    predictions, labels = drawn(metric, rows)
    counts = statistic.row_counts(rows, 30)
    assert (counts.sum(1) == rows).all()
    expected = [METRICS[metric](np.repeat(predictions, count), np.repeat(labels, count))[metric] for count in counts]
    for chunk in (statistic.CHUNK, 7 * rows):
        monkeypatch.setattr(statistic, "CHUNK", chunk)
        assert statistic.resampled_metric(metric, predictions, labels, counts) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_predictions_of_one_class_or_score_have_the_metric_of_utils_metrics(metric):
    _, labels = drawn(metric, 20)
    predictions = np.full(20, 0.1, labels.dtype)
    counts = statistic.row_counts(20, 5)
    expected = [METRICS[metric](np.repeat(predictions, count), np.repeat(labels, count))[metric] for count in counts]
    assert statistic.resampled_metric(metric, predictions, labels, counts) == pytest.approx(expected)


def test_with_rows_that_do_not_matter_the_multi_bootstrap_is_scipys_over_seeds():
    seeds = np.array([0.4, 1.1, -0.3, 0.9, 2.0, 0.1])
    found = statistic.multi_bootstrap(np.tile(seeds, (20_000, 1)))
    rng = np.random.default_rng(3)
    expected = stats.bootstrap((seeds,), np.mean, method="percentile", n_resamples=20_000, rng=rng)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval), abs=0.03)
    assert found.p == pytest.approx(2 * np.mean(expected.bootstrap_distribution <= 0), abs=0.01)
    assert 0 < found.p < 0.1


def test_with_seeds_that_do_not_differ_the_multi_bootstrap_is_scipys_over_rows():
    """Both sides are resampled on the same rows, or the interval would be wider."""
    (ours, labels), rng = drawn("acc", 200), np.random.default_rng(0)
    theirs = np.where(rng.random(200) < 0.8, ours, labels)  # better, and alike
    counts = statistic.row_counts(200, 5000)
    values = [statistic.resampled_metric("acc", column, labels, counts) for column in (ours, theirs)]
    found = statistic.multi_bootstrap(np.stack([values[0] - values[1]] * 3, axis=1))
    rights = ((ours == labels) * 1.0, (theirs == labels) * 1.0)
    expected = stats.bootstrap(
        rights, lambda a, b, axis: (a - b).mean(axis), paired=True, method="percentile", n_resamples=5000, rng=rng
    )
    assert found.interval == pytest.approx(tuple(expected.confidence_interval), abs=0.011)
    assert found.p == pytest.approx(2 * np.mean(expected.bootstrap_distribution >= 0), abs=0.002)


def test_no_p_is_below_what_so_many_resamples_can_tell():
    assert statistic.multi_bootstrap(np.full((500, 3), -1.0)).p == 2 / 500
    assert statistic.multi_bootstrap(np.zeros((500, 3))).p == 1


def test_the_multi_bootstrap_draws_seeds_apart_from_rows():
    """Its variance is about the sum of both: of seeds, and of rows of the mean over seeds."""
    rng = np.random.default_rng(0)
    of_rows, of_seeds = rng.normal(0, 2, (20_000, 1)), np.array([-3.0, 0.0, 3.0])
    found = statistic.multi_bootstrap(of_rows + of_seeds)
    width = found.interval.high - found.interval.low
    assert width == pytest.approx(2 * 1.96 * (2**2 + 6 / 3) ** 0.5, rel=0.05)
    assert statistic.multi_bootstrap(-(of_rows + of_seeds)).p == found.p == pytest.approx(1, abs=0.05)
