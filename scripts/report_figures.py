"""The figures of scripts/report.py, each as PNG and PDF; values are x 100."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from scripts.report_data import ALONE, TRIAL, Row, mean_over_seeds

plt.rcParams.update(
    {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 150, "legend.frameon": False}
)
# Okabe and Ito's, told apart by colour-blind readers, too; black is the dense teacher's student everywhere
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D31"]
MARKERS = "osD^vPX"
# the expressive score is that of lam 1, the friendly one that of lam 0
FIXED = {"lam 0": 0, "friendly": 0, "lam 0.25": 4, "lam 0.5": 1, "lam 0.75": 3, "lam 1": 2, "expressive": 2}
FIXED |= {"random": 5, "magnitude": 6}
UNITS = {"acc": "accuracy", "acc_and_f1": "(accuracy + F1) / 2", "corr": "(Pearson + Spearman) / 2"}


def style(method: str) -> dict[str, Any]:
    """Colour and marker of a method, the same in every figure."""
    index = FIXED.get(method, (3 + sum(map(ord, method))) % len(PALETTE))
    return {"color": PALETTE[index], "marker": MARKERS[index], "markersize": 4.5, "label": method}


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write name.png, of 256 colours, which is a third of the bytes, and name.pdf; the PNG's name."""
    figure.savefig(folder / f"{name}.png", bbox_inches="tight")
    with Image.open(folder / f"{name}.png") as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(folder / f"{name}.png", optimize=True)
    figure.savefig(folder / f"{name}.pdf", bbox_inches="tight")
    plt.close(figure)
    return f"{name}.png"


def metric_label(metric: str) -> str:
    """For an axis."""
    return f"{UNITS.get(metric, metric.replace('_', ' '))} x 100"


def sparsity_curves(rows: list[Row], methods: Sequence[str], title: str) -> Figure:
    """Mean student metric over seeds by teacher sparsity, a line for each method.

    Args:
        rows: of one task and student.
        methods: in the order of the legend.
        title: above it.
    """
    figure, axes = plt.subplots(figsize=(6.4, 4))
    _lines_without_sparsity(axes, rows)
    for method in methods:
        _by_sparsity(axes, rows, method, band=False)
    axes.set(xlabel="teacher sparsity (% of heads and neurons removed)", ylabel=metric_label(rows[0].metric))
    axes.set_title(f"{title} ({_seeds(rows)})", loc="left", fontsize=11)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), title="student of")
    return figure


def sparsity_panels(rows: list[Row], methods: Sequence[str], title: str) -> Figure:
    """The same, a panel for each method with a band of one standard deviation and a dot for each seed."""
    figure, panels = plt.subplots(1, len(methods), figsize=(1 + 2.4 * len(methods), 3.4), sharey=True, squeeze=False)
    for axes, method in zip(panels[0], methods, strict=True):
        _lines_without_sparsity(axes, rows)
        _by_sparsity(axes, rows, method, band=True)
        mine = [row for row in rows if row.method == method]
        dots = [row.teacher_sparsity for row in mine], [100 * row.value for row in mine]
        axes.scatter(*dots, s=9, color=style(method)["color"], alpha=0.6, linewidths=0)
        axes.set_title(method, fontsize=10)
    panels[0][0].set_ylabel(metric_label(rows[0].metric))
    figure.supxlabel("teacher sparsity (% of heads and neurons removed)", y=0.04, fontsize=10)
    figure.suptitle(f"{title} ({_seeds(rows)})", x=0.02, ha="left", fontsize=11)
    handles = dict(reversed(pair) for axes in panels[0] for pair in zip(*axes.get_legend_handles_labels(), strict=True))
    figure.tight_layout()
    figure.legend(handles.values(), handles, loc="upper left", bbox_to_anchor=(1, 0.9), title="student of")
    return figure


def _seeds(rows: list[Row]) -> str:
    seeds = len({row.seed for row in rows})
    return f"{seeds} seed{'s' * (seeds > 1)}"


def _lines_without_sparsity(axes: Axes, rows: list[Row]) -> None:
    """The students of the dense teacher, with a band of one standard deviation over seeds, and of none."""
    for method, color, dashes in ((TRIAL, "black", "--"), (ALONE, "#777777", ":")):
        mean = mean_over_seeds(100 * row.value for row in rows if row.method == method)
        if mean:
            axes.axhline(mean.mean, color=color, linewidth=1.2, linestyle=dashes, label=method)
        if mean and mean.deviation is not None and method == TRIAL:
            axes.axhspan(mean.mean - mean.deviation, mean.mean + mean.deviation, color=color, alpha=0.08, lw=0)


def _by_sparsity(axes: Axes, rows: list[Row], method: str, band: bool) -> None:
    """A method's means by teacher sparsity, and how far seeds are apart."""
    points = by_sparsity([row for row in rows if row.method == method], mean_over_seeds)
    means = np.array([point.mean for point in points.values()])
    spread = np.array([point.deviation or 0.0 for point in points.values()])
    axes.plot(list(points), means, linewidth=1.4, **style(method))
    if band:
        axes.fill_between(list(points), means - spread, means + spread, color=style(method)["color"], alpha=0.18, lw=0)


def by_sparsity(rows: Iterable[Row], summary: Callable) -> dict[int, Any]:
    """Teacher sparsity -> the summary of 100 x the values there."""
    sparsities = sorted({row.teacher_sparsity for row in rows})
    return {s: summary(100 * row.value for row in rows if row.teacher_sparsity == s) for s in sparsities}


def heat_map(rows: list[Row], methods: Sequence[str], title: str) -> Figure:
    """Methods down, teacher sparsities across, each cell the mean over seeds; a cell that is missing is hatched."""
    points = {method: by_sparsity([r for r in rows if r.method == method], mean_over_seeds) for method in methods}
    sparsities = sorted({s for means in points.values() for s in means})
    grid = np.array([[points[m][s].mean if s in points[m] else np.nan for s in sparsities] for m in methods])
    figure, axes = plt.subplots(figsize=(1.6 + 0.75 * len(sparsities), 1.1 + 0.5 * len(methods)))
    axes.set_facecolor("#dddddd")
    image = axes.imshow(grid, cmap="cividis", aspect="auto")
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for (line, column), value in np.ndenumerate(grid):
        text = "missing" if np.isnan(value) else f"{value:.1f}"
        color = "black" if np.isnan(value) or value > middle else "white"
        axes.text(column, line, text, ha="center", va="center", color=color, fontsize=9)
    axes.set_xticks(range(len(sparsities)), sparsities)
    axes.set_yticks(range(len(methods)), methods)
    axes.set_xlabel("teacher sparsity (%)")
    axes.set_title(f"{title}: {metric_label(rows[0].metric)}", loc="left", fontsize=11)
    figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    return figure


def kept_units(widths: dict[int, list[tuple[int, int]]], title: str) -> Figure:
    """Heads and neurons that each layer keeps: sparsity (%) -> (heads, neurons) by layer, side by side."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6))
    for axes, kind, name in ((left, 0, "heads"), (right, 1, "FFN neurons")):
        grid = np.array([[width[kind] for width in layers] for layers in widths.values()])
        _annotated(axes, grid, f"{name} kept", "layer", "teacher sparsity (%)", fontsize=7 if kind else 8)
        axes.set_xticks(range(grid.shape[1]), range(grid.shape[1]))
        axes.set_yticks(range(len(widths)), widths)
    figure.suptitle(title, x=0.02, ha="left", fontsize=11)
    figure.tight_layout()
    return figure


def head_scores(scores: dict[str, np.ndarray], title: str) -> Figure:
    """Scores of the heads, name -> (L, H), side by side on scales of their own."""
    figure, all_axes = plt.subplots(1, len(scores), figsize=(3.3 * len(scores), 3.2), squeeze=False)
    for axes, (name, score) in zip(all_axes[0], scores.items(), strict=True):
        image = axes.imshow(score, cmap="cividis", aspect="auto")
        axes.set(xlabel="head", ylabel="layer", xticks=range(0, score.shape[1], 2), yticks=range(score.shape[0]))
        axes.set_title(name, fontsize=10)
        figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03, label="score / norm of its layer")
    figure.suptitle(title, x=0.02, ha="left", fontsize=11)
    figure.tight_layout()
    return figure


def training_curves(histories: dict[str, list[dict]], metric: str, title: str) -> Figure:
    """Dev metric and training loss by epoch, one line for each run: label -> history."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.4))
    colors = plt.get_cmap("cividis")(np.linspace(0, 0.9, len(histories)))
    for color, (label, history) in zip(colors, histories.items(), strict=True):
        epochs = [entry["epoch"] for entry in history]
        left.plot(epochs, [100 * entry[metric] for entry in history], color=color, label=label, linewidth=1.2)
        right.plot(epochs, [entry["loss"] for entry in history], color=color, linewidth=1.2)
    left.set(xlabel="epoch", ylabel=f"dev {metric_label(metric)}")
    right.set(xlabel="epoch", ylabel="training loss")
    figure.suptitle(title, x=0.02, ha="left", fontsize=11)
    figure.tight_layout()
    figure.legend(loc="upper left", bbox_to_anchor=(1, 0.9), title="teacher sparsity (%)")
    return figure


def _annotated(axes: Axes, grid: np.ndarray, title: str, xlabel: str, ylabel: str, fontsize: int) -> None:
    """An image with its numbers written into it."""
    axes.imshow(grid, cmap="cividis", aspect="auto", vmin=0)
    for (line, column), value in np.ndenumerate(grid):
        color = "black" if value > grid.max() / 2 else "white"
        axes.text(column, line, str(value), ha="center", va="center", color=color, fontsize=fontsize)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, fontsize=10)
