"""The tables of scripts/report.py, and their Markdown, LaTeX and HTML."""

import html
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from scripts import report_data as data
from scripts import report_variants as variants
from scripts.report_costs import LENGTH
from utils.tasks import title_of

METRICS = {"acc": "accuracy", "acc_and_f1": "(accuracy + F1) / 2", "corr": "(Pearson + Spearman) / 2"}
METRICS |= {"matthews_corrcoef": "Matthews correlation", "f1": "F1", "macro_f1": "macro F1"}
FOLDED = 30  # lines of a table; longer ones are folded on the page


class Table(NamedTuple):
    """A table of results: cells, **bold** where they stand out, a caption and notes."""

    title: str
    header: tuple[str, ...]  # of several lines, the first being the name
    lines: list[tuple[str, ...]]  # cells, of several lines too
    grouped: int  # columns, the first ones, that the page turns into a heading for lines where they are the same
    left: int  # columns that are names and not numbers
    caption: str
    notes: tuple[str, ...] = ()  # on single cells or columns, below it


def groups(rows: list[data.Row]) -> dict[tuple[str, str], list[data.Row]]:
    """Task and student -> its rows, and those of the same student without a teacher.

    The latter of "3 layers + 4000 unlabelled rows" are those of "3 layers", since only a teacher has use for what is
    added; where "3 layers" has no others, it is left out.
    """
    found = {}
    students = {(row.task, row.student) for row in rows if row.student and row.method != data.ALONE}
    with_teacher = {(task, student.partition(" + ")[0]) for task, student in students}
    students |= {(row.task, row.student) for row in rows if row.method == data.ALONE} - with_teacher
    for task, student in sorted(students):
        plain = student.partition(" + ")[0]
        found[task, student] = [
            row
            for row in rows
            if row.task == task and (row.student == student or (row.student == plain and row.method == data.ALONE))
        ]
    return found


def methods_of(rows: list[data.Row]) -> list[str]:
    """Those with a sparse teacher, lams first."""
    return sorted({row.method for row in rows if row.is_swept}, key=lambda m: (m[:3] != "lam", m))


def listed(texts: list[str]) -> str:
    """One, two and three."""
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def seeds_of(rows: Iterable[data.Row]) -> str:
    """How many there are, in words."""
    count = len({row.seed for row in rows})
    return f"{count} seed{'s' * (count != 1)}"


def results_table(rows: list[data.Row], speeds: dict[str, float], measured: str) -> Table:
    """A line for each student and method, a column for each task; of sparse teachers what each seed's dev rows select.

    Args:
        rows: all there are.
        speeds: examples a second by student, "" being the teacher.
        measured: how.
    """
    tasks = sorted({row.task for row in rows})
    methods = methods_of(rows)
    lines = []
    notes = []
    teachers = [row for row in rows if row.method == data.TEACHER]
    students = {"": teachers}
    for (_, student), found in groups(rows).items():
        students[student] = students.get(student, []) + found
    for student, mine in sorted(students.items()):
        names = [data.ALONE, data.TRIAL, *methods, *variants.methods_of(rows)] if student else [data.TEACHER]
        found = {(n, t): [r for r in mine if (r.method, r.task) == (n, t)] for n in names for t in tasks}
        means = {where: _mean(there, rows) for where, there in found.items()}
        for name in names:
            cells = [_score_cell(means[name, t], [means[n, t] for n in names], found[name, t]) for t in tasks]
            there = [row for task in tasks for row in found[name, task]]
            label = f"{name}, best of {_number_of_sparsities(there)}" if name in methods and there else name
            lines.append((student, label, *cells, *_cost_cells(there, teachers, speeds)))
        remarks = {where: "; ".join(_remarks(there)) for where, there in found.items()}
        notes += [f"† {title_of(t)}, {student or 'dense'}, {n}: {text}." for (n, t), text in remarks.items() if text]
    header = ("student", "taught by", *(_task_header([row for row in rows if row.task == task]) for task in tasks))
    header += ("parameters", f"MACs\n{LENGTH} tokens", "examples\na second")
    return Table("Results", header, lines, 1, 2, f"{_how_to_read(rows)} {measured}", tuple(notes))


def _mean(found: list[data.Row], rows: list[data.Row]) -> str:
    mean = data.mean_over_seeds(100 * row.value for row in data.best_by_seed(found).values())
    if mean is None:
        return "missing"
    fewer = mean.seeds < len({row.seed for row in rows})
    spread = "" if mean.deviation is None else f" ± {mean.deviation:.2f}"
    return f"{mean.mean:.2f}{spread}{f' ({seeds_of(data.best_by_seed(found).values())})' if fewer else ''}"


def _score_cell(mean: str, means: list[str], found: list[data.Row]) -> str:
    """A mean among those of its student: in bold if it is the best as they are shown, † if something is to be said."""
    values = [float(text.split()[0]) for text in means if text != "missing"]
    is_best = mean != "missing" and len(values) > 1 and float(mean.split()[0]) == max(values)
    marked = f"**{mean}**" if is_best and values.count(max(values)) == 1 else mean
    return marked + " †" * bool(_remarks(found))


def _remarks(found: list[data.Row]) -> list[str]:
    """What a mean does not show: constant predictions, ties, unlike recipes, training that diverged or was ended."""
    best = list(data.best_by_seed(found).values())
    stuck, tied = sum(row.only_answer is not None for row in best), data.tied_seeds(found)
    diverged = sum(row.diverged is not None for row in found)
    dropped = len(found) - len(data.trained_to_the_end(found))
    apart = _apart(best)
    return (
        [f"one answer to every row in {stuck} of {len(best)} seeds"] * bool(stuck)
        + [f"best sparsities tie in {tied} of {len(best)} seeds, and the lowest is taken"] * bool(tied)
        + [f"seeds not trained alike, {apart}"] * bool(apart)
        + [f"training diverged in {diverged} of {len(found)} runs, and the weights before count"] * bool(diverged)
        + [f"--halving has dropped {dropped} of {len(found)} runs, which do not count"] * bool(dropped)
    )


def _apart(rows: list[data.Row]) -> str:
    """The settings of the recipe in which these differ, with all values; blank if in none."""
    values = {name: dict.fromkeys(str(row.recipe.get(name)) for row in rows) for row in rows for name in row.recipe}
    return ", ".join(f"{name} {listed(list(found))}" for name, found in sorted(values.items()) if len(found) > 1)


def _number_of_sparsities(found: list[data.Row]) -> str:
    counts = sorted({sum((r.task, r.seed) == (row.task, row.seed) for r in found) for row in found})
    return "-".join(map(str, dict.fromkeys((counts[0], counts[-1]))))


def _cost_cells(found: list[data.Row], teachers: list[data.Row], speeds: dict[str, float]) -> tuple[str, ...]:
    """Parameters, MACs and speed, and how they compare with the teacher's."""
    cells = []
    for name in ("parameters", "macs"):
        ours, theirs = ([v for row in group if (v := getattr(row, name)) is not None] for group in (found, teachers))
        cell = " - ".join(dict.fromkeys((_short(min(ours)), _short(max(ours))))) if ours else "-"
        share = 100 * statistics.fmean(ours) / statistics.fmean(theirs) if ours and theirs else None
        cells.append(cell if share is None or found[0].student == "" else f"{cell} ({share:.0f} %)")
    speed, teacher = (speeds.get(student) for student in (found[0].student if found else None, ""))
    ratio = f" ({speed / teacher:.1f}x)" if speed and teacher and found[0].student else ""
    return (*cells, f"{speed:,.0f}{ratio}" if speed else "-")


def _short(count: int) -> str:
    """Three digits and a unit."""
    count = float(f"{count:.2e}")
    size, unit = next(((s, u) for s, u in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if count >= s), (1, ""))
    return f"{count / size:.3g}{unit}"


def _task_header(mine: list[data.Row]) -> str:
    """A task with its metric, on how many rows it is, and what one gets right there without reading."""
    rows = ", ".join(map(str, sorted({row.rows for row in mine if row.rows is not None})))
    shares = sorted({row.commoner_share for row in mine if row.commoner_share is not None})
    commoner = ", ".join(f"{100 * share:.2f}" for share in shares)
    lines = (METRICS[mine[0].metric], f"{rows} rows" * bool(rows), f"commoner class {commoner} %" * bool(commoner))
    return "\n".join((title_of(mine[0].task), *filter(None, lines)))


def _how_to_read(rows: list[data.Row]) -> str:
    """The caption of the results: which numbers these are, and which rows the best were chosen on."""
    seeds = seeds_of(rows)
    what = "a single seed" if seeds == "1 seed" else f"mean ± sample standard deviation over {seeds}"
    text = [f"Dev metrics x 100, {what}; in bold the best of each student's, unless two tie."]
    if methods_of(rows):
        on = " and ".join(sorted({row.selected_on for row in rows}))
        text.append(
            "Sparse teachers have lost the heads and neurons of the lowest score: lam, the share of expressiveness in "
            f"it, or as named. Of their students each seed's best counts, chosen on {on}."
        )
        if on != "half of dev":
            text.append("Those are the rows reported, which flatters the best of several.")
    return " ".join(text)


def settings_table(found: dict[str, dict[str, list]]) -> Table:
    """A line for each setting with all values that it had in each task's runs."""
    shown = {
        "hours": lambda value: f"{value:.2f}",
        "unlabelled": lambda paths: " ".join(Path(path).name for path in paths),
        "git_commit": lambda value: value[:10],
        "model_path": lambda value: "/".join(Path(value).parts[-2:]),
    }
    labels = {"hours": "hours of scoring, training, asking teachers", "rows": "rows reported on"}
    lines = []
    for name in ("rows", "hours", *data.SETTINGS):
        values = [mine.get(name, []) for mine in found.values()]
        if any(value is not None and value is not False for mine in values for value in mine):
            cells = [", ".join(_setting(value, shown.get(name, str)) for value in mine) or "-" for mine in values]
            lines.append((labels.get(name, name), *cells))
    header = ("setting", *(title_of(task) for task in found))
    caption = "All values that a setting had in a task's runs; the rest is in each checkpoint's args.json."
    return Table("Settings", header, lines, 0, len(header), caption)


def _setting(value: Any, shown: Callable[[Any], str]) -> str:
    return "not given" if value is None else "no" if value is False else shown(value)


def markdown(table: Table) -> str:
    """For Markdown, with what there is to say below."""
    sides = ["---" if column < table.left else "--:" for column in range(len(table.header))]
    rows = [" | ".join(row).replace("\n", "<br>") for row in (table.header, sides, *table.lines)]
    return "".join(f"| {row} |\n" for row in rows) + "".join(f"\n{note}\n" for note in (table.caption, *table.notes))


def latex(table: Table) -> str:
    """A tabular for LaTeX with booktabs, and its notes as comments."""

    def row(cells: Iterable[str]) -> str:
        return " & ".join(map(cell, cells)) + r" \\"

    def cell(text: str) -> str:
        for ours, theirs in (("%", r"\%"), ("_", r"\_"), ("±", r"$\pm$"), ("†", r"\dag{}"), ("\n", ", ")):
            text = text.replace(ours, theirs)
        before, *bold = text.split("**")
        return f"{before}\\textbf{{{bold[0]}}}{bold[1]}" if bold else text

    columns = "".join("l" if column < table.left else "r" for column in range(len(table.header)))
    body = [row(table.header), r"\midrule", *map(row, table.lines)]
    notes = [f"% {note}" for note in (table.caption, *table.notes)]
    frame = [*notes, rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(frame)


def html_table(table: Table) -> str:
    """For the page: scrolled in a box of its own while names stay in sight, and folded if it is long."""
    body = [_html_row("th", table, table.header)]
    heading = None
    for line in table.lines:
        if line[: table.grouped] != heading:
            heading = line[: table.grouped]
            name = html.escape(", ".join(heading))
            body += [f"<tr class=group><th colspan={len(line)}><span>{name}</span></th></tr>"] * bool(name)
        body.append(_html_row("td", table, line))
    box = f"<div class=wide tabindex=0><table>{''.join(body)}</table></div>"
    if len(table.lines) > FOLDED:
        box = f"<details><summary>{len(table.lines)} lines</summary>{box}</details>"
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    below = f"<p class=note>{html.escape(table.caption)}</p>" + f"<ul class=note>{notes}</ul>" * bool(notes)
    return f"<section><h2>{html.escape(table.title)}</h2>{box}{below}</section>"


def _html_row(kind: str, table: Table, cells: tuple[str, ...]) -> str:
    texts = []
    for column, text in enumerate(cells[table.grouped :], start=table.grouped):
        first, *lines = html.escape(text).split("\n")
        before, *bold = first.split("**")
        content = f"<b>{bold[0]}</b>{bold[1]}" if bold else first
        below = f"<small>{'<br>'.join(lines)}</small>" if lines else ""
        texts.append(f"<{kind}{' class=number' if column >= table.left else ''}>{content}{below}</{kind}>")
    return f"<tr>{''.join(texts)}</tr>"
