"""Collects all finished checkpoints below some folders into tables, figures and one page.

    python scripts/report.py                        # outputs/ -> report/
    python scripts/report.py outputs other/outputs --report_dir report

Writes results.csv (one line a number), results.md and results.tex (task x student x method, mean and standard deviation
over seeds), comparisons.md and by_sparsity.md (sparse against dense teachers, paired over seeds), settings.md (with
hours and hardware), figures as PNG and PDF, and index.html, a page that holds all of it. What was not run is shown as
missing; at a teacher sparsity of 0 % one method's runs stand for all, since that teacher is the dense one. Needs
matplotlib.
"""

import argparse
import base64
import html
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from safetensors.numpy import load_file

from models.units import kept_units
from scripts import report_data as data
from utils.arguments import Parser
from utils.entry import entry_point
from utils.errors import InputError
from utils.files import read_json, write_text
from utils.folder import RunFolder
from utils.paths import sparsity_of
from utils.tasks import TASKS

HEADER = ("task", "student", "method", "metric x 100", "seeds", "selected on", "rows", "commoner class", "remarks")
NUMBERS = ("difference x 100", "95 % interval", "better / worse", "sign test p")
COMPARED = ("task", "student", "sparse teacher", "against", *NUMBERS)
RIGHT = {"metric x 100", "seeds", "rows", "commoner class", *NUMBERS}  # columns that are aligned there
FOLDED = 50  # lines of a table; longer ones are folded on the page
BROAD = 1200  # pixels of a figure; broader ones are scrolled on a phone
OVERALL = ("best", "mean of all cut")  # what to take of all teacher sparsities' students
NOTE = (
    "Dev metrics x 100. A sparse teacher's student is taken, in each seed, at the teacher sparsity that does best on "
    "the rows that select; where those are also the rows reported, the maximum over sparsities flatters it. The mean "
    "of all cut teachers' students chooses nothing, and randomly cut teachers have as many sparsities to choose from."
)
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; } img { max-width: 100%; }
img.broad { max-width: none; width: max(100%, 46rem); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; } caption { text-align: left; }
th, td { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { border-bottom: 2px solid #666; } .right { text-align: right; }
figure { margin: 1rem 0; } figcaption { font-size: .85rem; color: #444; }
"""


def parse_args(argv=None):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("outputs", nargs="*", default=["outputs"], help="folders of runs or sweeps (default outputs)")
    parser.add_argument("--report_dir", default="report", help="where to (default report)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error (default: one line)")
    return parser.parse_args(argv)


def groups(rows: list[data.Row]) -> list[tuple[str, str]]:
    """Task and student of every student there is."""
    return sorted({(row.task, row.student) for row in rows if row.student})


def methods_of(rows: list[data.Row]) -> list[str]:
    """Those with a sparse teacher, lams first."""
    return sorted({row.method for row in rows if row.teacher_sparsity is not None}, key=lambda m: (m[:3] != "lam", m))


def results_table(rows: list[data.Row]) -> list[tuple[str, ...]]:
    """A line for each task, student and method; of sparse teachers at the sparsity that each seed's dev rows select."""
    lines = []
    methods = methods_of(rows)
    for task in sorted({row.task for row in rows}):
        mine = [row for row in rows if row.task == task]
        for student in ["", *sorted({row.student for row in mine if row.student})]:
            names = [data.TEACHER] if not student else [data.ALONE, data.TRIAL, *methods]
            for method in names:
                found = [row for row in mine if row.student == student and row.method == method]
                label = f"{method}, best sparsity" if method in methods else method
                lines.append((TASKS[task].title, student or "-", label, *_result_cells(found)))
    return lines


def _result_cells(found: list[data.Row]) -> tuple[str, ...]:
    """Mean, seeds, what selected, what the rows reported on are like, and what speaks against the number."""
    best = list(data.best_by_seed(found).values())
    mean = data.mean_over_seeds(100 * row.value for row in best)
    on = ", ".join(sorted({row.selected_on for row in best}))
    rows = ", ".join(str(count) for count in sorted({row.rows for row in best if row.rows is not None}))
    shares = sorted({row.commoner_share for row in best if row.commoner_share is not None})
    stuck, tied = sum(row.only_answer is not None for row in best), data.tied_seeds(found)
    remarks = [f"one answer to every row in {stuck} of {len(best)} seeds"] * bool(stuck)
    remarks += [f"best sparsities tie in {tied} of {len(best)} seeds"] * bool(tied)
    commoner = ", ".join(f"{100 * share:.2f}" for share in shares)
    return (*_mean_cells(mean), on, rows, commoner, "; ".join(remarks))


def _mean_cells(mean: data.Mean | None) -> tuple[str, str]:
    if mean is None:
        return "missing", "0"
    spread = "" if mean.deviation is None else f" ± {mean.deviation:.2f}"
    return f"{mean.mean:.2f}{spread}", str(mean.seeds)


def by_choice(found: list[data.Row]) -> dict[str, dict[int, float]]:
    """What to take of a method's students -> seed -> 100 x its metric; the mean of all cut ones chooses nothing."""
    best, mean = OVERALL
    choices = {best: {seed: 100 * row.value for seed, row in data.best_by_seed(found).items()}}
    cut = [row for row in found if row.teacher_sparsity]
    seeds = sorted({row.seed for row in cut})
    choices[mean] = {seed: statistics.fmean(100 * row.value for row in cut if row.seed == seed) for seed in seeds}
    for sparsity in sorted({row.teacher_sparsity for row in found}):
        choices[f"{sparsity} %"] = {row.seed: 100 * row.value for row in found if row.teacher_sparsity == sparsity}
    return choices


def comparison_table(rows: list[data.Row], overall: bool) -> list[tuple[str, ...]]:
    """Students of sparse teachers less the dense one's, and less those of randomly cut teachers, paired over seeds.

    `overall`: of all sparsities together, else of each.
    """
    lines = []
    for task, student in groups(rows):
        mine = [row for row in rows if (row.task, row.student) == (task, student)]
        dense = {row.seed: 100 * row.value for row in mine if row.method == data.TRIAL}
        methods = {method: by_choice([row for row in mine if row.method == method]) for method in methods_of(mine)}
        pairs = [(m, choice, values, "dense", dense) for m in methods for choice, values in methods[m].items()]
        for method in [m for m in methods if "random" in methods and m != "random"]:
            for choice in OVERALL:
                pairs.append((method, choice, methods[method][choice], "random", methods["random"][choice]))
        for method, choice, ours, other, theirs in pairs:
            if (choice in OVERALL) != overall:
                continue
            compared = _comparison_cells(data.compare(ours, theirs))
            lines.append((TASKS[task].title, student, f"{method}, {choice}", other, *compared))
    return lines


def _comparison_cells(compared: data.Comparison | None) -> tuple[str, ...]:
    if compared is None:
        return ("missing",) * 4
    interval = "-" if compared.low is None else f"{compared.low:+.2f} to {compared.high:+.2f}"
    counts = f"{compared.better} / {compared.worse} of {compared.seeds}"
    return f"{compared.difference:+.2f}", interval, counts, f"{compared.sign_p:.3f}"


def settings_table(found: dict[str, dict[str, list]]) -> list[tuple[str, ...]]:
    """A line for each setting with all values that it had in each task's runs."""

    shown = {
        "hours": lambda value: f"{value:.2f}",
        "git_commit": lambda value: value[:10],
        "model_path": lambda value: "/".join(Path(value).parts[-2:]),
    }

    def cell(name: str, values: list) -> str:
        texts = [shown.get(name, str)(value) for value in values if value not in (None, False)]
        return ", ".join(texts) or "-"

    lines = []
    for name in ("hours", *data.SETTINGS):
        label = "hours of scoring, training, asking teachers" if name == "hours" else name
        lines.append((label, *(cell(name, mine.get(name, [])) for mine in found.values())))
    return [line for line in lines if set(line[1:]) != {"-"}]


def markdown(header: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """A table for Markdown."""
    rows = [header, ["--:" if column in RIGHT else "---" for column in header], *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def latex(header: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """A tabular for LaTeX with booktabs."""

    def row(cells) -> str:
        return " & ".join(cell.replace("%", r"\%").replace("±", r"$\pm$") for cell in cells) + r" \\"

    columns = "".join("r" if column in RIGHT else "l" for column in header)
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", row(header), r"\midrule", *map(row, lines), r"\bottomrule"]
    return "\n".join([*body, r"\end{tabular}", ""])


def draw(rows: list[data.Row], folder: Path) -> list[tuple[str, str]]:
    """All figures that the rows allow: (file name of the PNG, caption)."""
    from scripts import report_figures as figures

    drawn = []
    for task, student in groups(rows):
        mine = [row for row in rows if (row.task, row.student) == (task, student)]
        methods, title = methods_of(mine), f"{TASKS[task].title}, student: {student}"
        if not methods:
            continue
        name = f"{task}_{student}".replace(" ", "_").replace("%", "percent").replace("(", "").replace(")", "")
        curves = figures.sparsity_curves(mine, methods, title)
        means = f"Means over seeds; bands are one standard deviation. Selected on {mine[0].selected_on}."
        drawn.append((figures.save(curves, folder, f"curves_{name}"), f"{title}. {means}"))
        panels = figures.sparsity_panels(mine, methods, title)
        drawn.append((figures.save(panels, folder, f"panels_{name}"), f"{title}, by method. {means} Dots are seeds."))
        heat = figures.heat_map(mine, methods, title)
        drawn.append((figures.save(heat, folder, f"heat_{name}"), f"{title}: method by teacher sparsity, means."))
        folders = sorted({(row.method, row.seed, row.folder) for row in mine if row.teacher_sparsity is not None})
        method, seed, path = next((f for f in folders if f[0] == "lam 0.5"), folders[0])
        drawn += _draw_run(figures, Path(path), folder, name, f"{title}, {method}, seed {seed}", mine[0].metric)
    return drawn


def _draw_run(figures, run: Path, folder: Path, name: str, title: str, metric: str) -> list[tuple[str, str]]:
    """Of one rewinding run: how its students trained, what its teacher kept, and its teacher's scores."""
    folder_of_run = RunFolder(run)
    results = {sparsity_of(name): result for name, result in folder_of_run.results().items()}
    curves = figures.training_curves({s: row["history"] for s, row in results.items()}, metric, title)
    drawn = [(figures.save(curves, folder, f"training_{name}"), f"{title}: training, by teacher sparsity.")]
    teacher = data.sparse_teacher(run, folder_of_run.settings(folder_of_run.names()[0]))
    if teacher is None:
        return drawn
    config = argparse.Namespace(**read_json(teacher / "config.json"))
    widths = {int(s): kept_units(config, int(s)) for s in sorted(config.sparsity_map, key=int)}
    drawn.append((figures.save(figures.kept_units(widths, title), folder, f"kept_{name}"), f"{title}: what is kept."))
    scores = load_file(teacher / "scores.safetensors")
    heads = {key.removeprefix("head_"): scores[key] for key in sorted(scores) if key.startswith("head_")}
    drawn.append((figures.save(figures.head_scores(heads, title), folder, f"scores_{name}"), f"{title}: head scores."))
    return drawn


def page(tables: dict[str, tuple[tuple[str, ...], list]], drawn: list[tuple[str, str]], folder: Path) -> str:
    """One HTML page with everything in it."""

    def table(header, lines) -> str:
        sides = [' class="right"' if column in RIGHT else "" for column in header]

        def row(kind, cells) -> str:
            columns = zip(sides, cells, strict=True)
            return "<tr>" + "".join(f"<{kind}{side}>{html.escape(cell)}</{kind}>" for side, cell in columns) + "</tr>"

        body = "".join(row("td", line) for line in lines)
        return f'<div class="wide"><table><thead>{row("th", header)}</thead><tbody>{body}</tbody></table></div>'

    parts = [f"<p>{NOTE}</p>"]
    for title, (header, lines) in tables.items():
        folded = len(lines) > FOLDED
        before, after = ("<details><summary>show</summary>", "</details>") if folded else ("", "")
        parts.append(f"<h2>{html.escape(title)}</h2>{before}{table(header, lines)}{after}")
    parts.append("<h2>Figures</h2>" if drawn else "")
    for name, caption in drawn:
        image, text = (folder / name).read_bytes(), html.escape(caption)
        size = "broad" if int.from_bytes(image[16:20]) > BROAD else "narrow"  # where a PNG has its width
        picture = f'<img class={size} alt="{text}" src="data:image/png;base64,{base64.b64encode(image).decode()}">'
        parts.append(f'<figure><div class="wide">{picture}</div><figcaption>{text}</figcaption></figure>')
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    title = "Distillation from sparse teachers: results"
    body = f"<h1>{title}</h1>{''.join(parts)}"
    return (
        f"<!doctype html><html lang=en><head>{meta}<title>{title}</title><style>{STYLE}</style></head>{body}</html>\n"
    )


@entry_point()
def main(argv=None):
    args = parse_args(argv)
    try:
        import matplotlib  # noqa: F401, an optional package
    except ImportError:
        raise InputError("no matplotlib for the figures: pip install matplotlib") from None
    found, folder = list(data.checkpoints(map(Path, args.outputs))), Path(args.report_dir)
    rows, settings = data.collect(found), data.settings(found)
    folder.mkdir(parents=True, exist_ok=True)
    data.write_csv(folder / "results.csv", rows)
    rows = data.with_dense_ends(rows)
    tables = {
        "Results": (HEADER, results_table(rows)),
        "Sparse against dense teachers, paired over seeds": (COMPARED, comparison_table(rows, overall=True)),
        "The same at each teacher sparsity": (COMPARED, comparison_table(rows, overall=False)),
        "Settings": (("setting", *(TASKS[task].title for task in settings)), settings_table(settings)),
    }
    for name, table in zip(("results", "comparisons", "by_sparsity", "settings"), tables.values(), strict=True):
        write_text(folder / f"{name}.md", markdown(*table))
    write_text(folder / "results.tex", latex(*tables["Results"]))
    drawn = draw(rows, folder)
    write_text(folder / "index.html", page(tables, drawn, folder))
    print(f"{len(rows)} numbers, {len(drawn)} figures: {folder / 'index.html'}")


if __name__ == "__main__":
    main()
