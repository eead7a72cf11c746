"""The figures of scripts/report.py, each as PNG, PDF and SVG; values are x 100. None stands for what shows nothing."""

import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from scripts.report_comparisons import Arm
from scripts.report_data import ALONE, TRIAL, Row, mean_over_seeds, trained_to_the_end
from scripts.report_tables import METRICS, seeds_of

WIDTH = 4.8  # inches: letters are still read where a phone shows that as its 390 pixels
plt.rcParams.update(
    {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 150, "legend.frameon": False}
    | {
        "svg.fonttype": "none",
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "figure.constrained_layout.use": True,
    }
)
# Okabe and Ito's, told apart by colour-blind readers, too; black is the dense teacher's student everywhere
GREY = "#888888"
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D31"]
MARKERS = "osD^vPX"
SEQUENCE = LinearSegmentedColormap.from_list("", ["#0072B2", "#CC79A7", "#D55E00"])  # seen on white and on black
# the expressive score is that of lam 1, the friendly one that of lam 0
FIXED = {"lam 0": 0, "friendly": 0, "lam 0.25": 4, "lam 0.5": 1, "lam 0.75": 3, "lam 1": 2, "expressive": 2}
FIXED |= {"random": 5, "magnitude": 6}


def style(method: str) -> dict[str, Any]:
    """Colour and marker of a method, the same in every figure."""
    if method == ALONE:
        return {"color": GREY, "marker": "x", "markersize": 4.5, "label": method}
    index = FIXED.get(method, (3 + sum(map(ord, method))) % len(PALETTE))
    return {"color": PALETTE[index], "marker": MARKERS[index], "markersize": 4.5, "label": method}


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write name.png, of 256 colours, which is a third of the bytes, and name.pdf; SVG for a page, light or dark.

    The same figure has the same bytes each time.
    """
    figure.savefig(folder / f"{name}.png")
    with Image.open(folder / f"{name}.png") as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(folder / f"{name}.png", optimize=True)
    figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    text = io.StringIO()
    with plt.rc_context({"svg.hashsalt": name}):  # the same names inside in every report, others in every figure
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace("#000000", "currentColor")


def metric_label(metric: str) -> str:
    """For an axis."""
    return textwrap.fill(f"{METRICS[metric]} x\u00a0100", 26)


def varies(values: Iterable[float]) -> bool:
    """Whether the values differ, so that there is something to see."""
    return len({round(value, 6) for value in values}) > 1


def sparsity_curves(rows: list[Row], methods: Sequence[str], title: str) -> Figure | None:
    """Mean student metric over seeds by teacher sparsity, a line for each method, beside the dense teacher's students.

    Args:
        rows: of one task and student.
        methods: in the order of the legend.
        title: above it.
    """
    if not varies(row.value for row in rows):
        return None
    figure, axes = plt.subplots(figsize=(WIDTH, 3.9))
    _lines_without_sparsity(axes, rows)
    for method in methods:
        _by_sparsity(axes, rows, method, band=len(methods) == 1)
    axes.set(xlabel="teacher sparsity (% of heads and neurons removed)", ylabel=metric_label(rows[0].metric))
    axes.set_title(f"{title} ({seeds_of(rows)})")
    handles, labels = axes.get_legend_handles_labels()
    _legend(figure, dict(zip(labels, handles, strict=True)), 2)
    return figure


def sparsity_panels(rows: list[Row], methods: Sequence[str], title: str) -> Figure | None:
    """The curve of each method in a panel of its own, with a band of one standard deviation and a dot for each seed."""
    if len(methods) < 2 or not varies(row.value for row in rows):
        return None
    lines = (len(methods) + 1) // 2
    size = (WIDTH, 1.7 + 2 * lines)
    figure, panels = plt.subplots(lines, 2, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axes, method in zip(panels.flat, methods, strict=False):
        _lines_without_sparsity(axes, rows)
        _by_sparsity(axes, rows, method, band=True)
        axes.set_title(method)
    for axes in panels.flat[len(methods) :]:
        axes.set_visible(False)
    figure.supylabel(metric_label(rows[0].metric), fontsize=10)
    for column in range(2):
        [axes for axes in panels[:, column] if axes.get_visible()][-1].set(xlabel="teacher sparsity (%)")
    figure.suptitle(f"{title} ({seeds_of(rows)})", x=0.02, ha="left", fontsize=10)
    handles = dict(
        reversed(pair) for axes in panels.flat for pair in zip(*axes.get_legend_handles_labels(), strict=True)
    )
    _legend(figure, handles, 2)
    return figure


def _lines_without_sparsity(axes: Axes, rows: list[Row]) -> None:
    """The students of the dense teacher, with a band of one standard deviation over seeds, and of none."""
    for method, color, dashes in ((TRIAL, "black", "--"), (ALONE, GREY, ":")):
        mean = mean_over_seeds(100 * row.value for row in rows if row.method == method)
        if mean:
            axes.axhline(mean.mean, color=color, linewidth=1.4, linestyle=dashes, label=method)
        if mean and mean.deviation and method == TRIAL:
            low, high = mean.mean - mean.deviation, mean.mean + mean.deviation
            axes.axhspan(low, high, color=GREY, alpha=0.2, lw=0, label=f"{method}, ± 1 std. dev.")


def _by_sparsity(axes: Axes, rows: list[Row], method: str, band: bool) -> None:
    """A method's means by teacher sparsity; with a band how far seeds are apart, and each of them as a dot."""
    mine = trained_to_the_end(row for row in rows if row.method == method)
    points = by_sparsity(mine, mean_over_seeds)
    means = np.array([point.mean for point in points.values()])
    axes.plot(list(points), means, linewidth=1.6, **style(method))
    if band and any(point.deviation for point in points.values()):
        spread = np.array([point.deviation or 0.0 for point in points.values()])
        looks = {"color": style(method)["color"], "alpha": 0.2, "lw": 0, "label": "± 1 std. dev."}
        axes.fill_between(list(points), means - spread, means + spread, **looks)
        dots = [row.teacher_sparsity for row in mine], [100 * row.value for row in mine]
        axes.scatter(*dots, s=9, color=looks["color"], alpha=0.7, linewidths=0, label="one seed")
    dropped = [row for row in rows if row.method == method and row.dropped_at is not None]
    places = [row.teacher_sparsity for row in dropped], [100 * row.value for row in dropped]
    if dropped:
        axes.scatter(*places, s=16, marker="x", color=style(method)["color"], alpha=0.7, label="dropped early")


def by_sparsity(rows: Iterable[Row], summary: Callable) -> dict[int, Any]:
    """Teacher sparsity -> the summary of 100 x the values there."""
    sparsities = sorted({row.teacher_sparsity for row in rows})
    return {s: summary(100 * row.value for row in rows if row.teacher_sparsity == s) for s in sparsities}


def differences(arms: Sequence[Arm]) -> Figure | None:
    """Students' metric less the dense teacher's: a dot for each seed, their mean, and its interval over seeds.

    Args:
        arms: those of a task and student one after the other, a line each below its name.
    """
    if not varies(difference for arm in arms for difference in arm.compared.differences):
        return None
    groups = list(dict.fromkeys(arm.group for arm in arms))
    places = [place + 1 + groups.index(arm.group) for place, arm in enumerate(arms)]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.8 + 0.36 * (len(arms) + len(groups))))
    for place, arm in zip(places, arms, strict=True):
        found, looks = arm.compared, style(arm.method)
        axes.plot([0, 0], [place - 0.5, place + 0.5], color="black", linewidth=1.4, linestyle="--")
        axes.scatter(
            found.differences, [place + 0.22] * found.seeds, s=9, color=looks["color"], alpha=0.5, linewidths=0
        )
        axes.plot(found.difference, place, marker=looks["marker"], markersize=6, color=looks["color"])
        if found.low is not None:
            axes.plot([found.low, found.high], [place, place], linewidth=1.6, color=looks["color"])
    for line, group in enumerate(groups):
        place = line + [arm.group for arm in arms].index(group)
        looks = {"transform": axes.get_yaxis_transform(), "va": "center", "fontweight": "bold", "fontsize": 9}
        axes.text(0.02, place, textwrap.fill(group, 38), **looks).set_in_layout(False)  # whose width would shrink axes
    axes.set(xlabel="points beside the dense teacher's student", ylim=(len(arms) + len(groups) - 0.5, -0.5))
    axes.set_yticks(places, [textwrap.fill(arm.label, 22) for arm in arms])
    return figure


def kept_units(widths: dict[int, list[tuple[int, int]]], title: str) -> Figure | None:
    """Heads and neurons that each layer keeps: sparsity (%) -> (heads, neurons) by layer."""
    if len(set(map(tuple, widths.values()))) < 2:
        return None
    figure, panels = plt.subplots(2, 1, figsize=(WIDTH, 1.2 + 0.5 * len(widths)))
    for kind, (axes, name) in enumerate(zip(panels, ("heads", "FFN neurons"), strict=True)):
        grid = np.array([[width[kind] for width in layers] for layers in widths.values()])
        axes.imshow(grid, cmap="cividis", aspect="auto", vmin=0)
        size = min(8, 88 / grid.shape[1])  # four digits fit into a column
        for (line, column), value in np.ndenumerate(grid):
            color = "#111111" if value > grid.max() / 2 else "#ffffff"
            axes.text(column, line, str(value), ha="center", va="center", color=color, fontsize=size)
        axes.set(xlabel="layer", ylabel="teacher sparsity (%)", title=f"{name} kept")
        axes.set_xticks(range(grid.shape[1]))
        axes.set_yticks(range(len(widths)), widths)
    figure.suptitle(title, x=0.02, ha="left", fontsize=10)
    return figure


def head_scores(scores: dict[str, np.ndarray], title: str) -> Figure | None:
    """Scores of the heads, name -> (L, H), on scales of their own; without those that tell no heads apart."""
    scores = {name: score for name, score in scores.items() if varies(score.flat)}
    if not scores:
        return None
    figure, panels = plt.subplots(len(scores), 1, figsize=(WIDTH, 0.4 + 2.1 * len(scores)), squeeze=False)
    for axes, (name, score) in zip(panels.flat, scores.items(), strict=True):
        image = axes.imshow(score, cmap="cividis", aspect="auto")
        axes.set(xlabel="head", ylabel="layer", title=name)
        axes.set(xticks=range(score.shape[1]), yticks=range(score.shape[0]))
        figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03, label="score / layer's norm")
    figure.suptitle(title, x=0.02, ha="left", fontsize=10)
    return figure


def training_curves(histories: dict[int, list[dict]], metric: str, title: str) -> Figure | None:
    """Dev metric and training loss by epoch, as far as they move, a line for each teacher sparsity."""
    entries = [entry for history in histories.values() for entry in history]
    kinds = ((metric, 100, f"dev {metric_label(metric)}"), ("loss", 1, "training loss"))
    moving = [kind for kind in kinds if varies(entry[kind[0]] for entry in entries)]
    if not moving or max(map(len, histories.values())) < 2:
        return None
    figure, panels = plt.subplots(len(moving), 1, figsize=(WIDTH, 1.2 + 2.2 * len(moving)), sharex=True, squeeze=False)
    colors = SEQUENCE(np.linspace(0, 1, len(histories)))
    for axes, (key, factor, label) in zip(panels.flat, moving, strict=True):
        for color, (sparsity, history) in zip(colors, histories.items(), strict=True):
            values = [factor * entry[key] for entry in history]
            axes.plot([entry["epoch"] for entry in history], values, color=color, label=f"{sparsity} %", linewidth=1.4)
        axes.set(ylabel=label)
    panels[-1][0].set(xlabel="epoch")
    figure.suptitle(title, x=0.02, ha="left", fontsize=10)
    handles, labels = panels[0][0].get_legend_handles_labels()
    _legend(figure, dict(zip(labels, handles, strict=True)), 5, "teacher sparsity")
    return figure


def _legend(figure: Figure, handles: dict[str, Any], columns: int, title: str = "taught by") -> None:
    """Below all axes, where it takes no width: label -> its artist."""
    looks = {"loc": "outside lower left", "alignment": "left", "fontsize": 9, "title": title, "ncols": columns}
    figure.legend(handles.values(), handles, **looks)
