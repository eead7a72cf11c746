"""Collects all finished checkpoints below some folders into tables, figures and one page.

    python scripts/report.py                        # outputs/ -> report/
    python scripts/report.py outputs other/outputs --report_dir report

Writes results.csv (one line a number), results.md and results.tex (student and method by task: mean and standard
deviation over seeds, parameters, MACs, speed), comparisons.md and by_sparsity.md (sparse against dense teachers, paired
over seeds, with tests), settings.md (with rows, hours and hardware), figures as PNG and PDF, and index.html, a page
that opens with what comes of it all. What was not run is shown as missing; at a teacher sparsity of 0 % one method's
runs stand for all, since that teacher is the dense one. Speed is measured now, on one checkpoint of each student and of
the teacher in turns: thirteen batches of 8 rows of 128 tokens, on the GPU if there is one. Needs matplotlib.
"""

import argparse
import html
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from safetensors.numpy import load_file

from models.units import CheckpointError, kept_units
from scripts import report_comparisons as comparisons
from scripts import report_costs as costs
from scripts import report_data as data
from scripts import report_tables as tables
from scripts import report_words as words
from utils.arguments import Parser
from utils.entry import entry_point
from utils.errors import InputError
from utils.files import read_json, write_text
from utils.folder import RunFolder
from utils.machine import hardware
from utils.paths import sparsity_of
from utils.tasks import title_of

TITLE = "Do sparse teachers teach better?"
STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #585d64; --line: #d8dbdf; --page: #fff; --mark: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e4; --soft: #a6abb2; --line: #3b4047; --page: #15171a; --mark: #56b4e9; }
}
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 66rem;
  margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1rem 0; } h2 { font-size: 1.25rem; margin: 3rem 0 .75rem; }
.lead { font-size: 1.15rem; border-left: 4px solid var(--mark); padding-left: 1rem; margin: 0; }
.lead, .note { max-width: 46rem; } .note, figcaption, small { font-size: .875rem; color: var(--soft); }
.note { margin: .75rem 0; } ul.note { padding-left: 1.2rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 23rem), 1fr)); gap: 1.5rem 2rem; }
figure { margin: 1rem 0 0; max-width: 34rem; } svg, img { width: 100%; height: auto; } img { background: #fff; }
svg text { fill: currentColor; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; overflow-wrap: normal; }
th, td { padding: .35rem .7rem; text-align: left; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
tr:first-child th { vertical-align: bottom; border-bottom: 2px solid var(--soft); }
small { display: block; font-weight: normal; } .group th { padding-top: 1rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
tr > :first-child, .group span { position: sticky; left: 0; background: var(--page); padding-left: 0; }
summary { cursor: pointer; color: var(--mark); }
@media (max-width: 40rem) {
  th, td { padding: .3rem .45rem; }
  tr:not(.group) > :first-child { white-space: normal; min-width: 7.5rem; max-width: 8.5rem; }
}
"""


def parse_args(argv=None):
    parser = Parser(__doc__)
    add = parser.add_argument
    add("outputs", nargs="*", default=["outputs"], help="folders of runs or sweeps (default outputs)")
    add("--report_dir", default="report", help="where to (default report)")
    add("--no_speed", action="store_true", help="do not measure speed (default: measure, under a minute a student)")
    return parser.parse_args(argv)


def measure(rows: list[data.Row], is_wanted: bool) -> tuple[dict[str, float], str]:
    """Examples a second by student, "" being the teacher, each of the first checkpoint that has weights; and how."""
    chosen: dict[str, Path] = {}
    for row in rows if is_wanted else []:
        if row.student not in chosen and costs.can_be_measured(row.checkpoint):
            chosen[row.student] = row.checkpoint
    if not chosen:
        return {}, "Speed was not measured."
    device = "cuda" if torch.cuda.is_available() else "cpu"
    times = costs.batch_times(chosen, device)
    medians = {student: statistics.median(taken) for student, taken in times.items()}
    apart = [abs(one / medians[student] - 1) for student, taken in times.items() for one in taken]
    threads = "{hardware} (CPU threads: {cpu_threads})".format(**hardware(device))
    return {student: 1000 * costs.BATCH / median for student, median in medians.items()}, (
        f"Speed: one checkpoint of each student and of the teacher in turns, median of {costs.REPEATS} batches of "
        f"{costs.BATCH} rows of {costs.LENGTH} tokens without padding, float32, torch {torch.__version__} on "
        f"{threads}, as this was written; half of the batches took within {100 * statistics.median(apart):.0f} % of it."
    )


def draw(rows: list[data.Row], folder: Path) -> tuple[dict[str, list[str]], list[str]]:
    """All figures as SVG with their captions, by kind, and which were left out, as there is nothing to see in them."""
    from scripts import report_figures as figures

    drawn: dict[str, list[str]] = {kind: [] for kind in ("differences", "curves", *words.CLOSER)}
    left_out = []

    # students beside the dense teacher's, all in one figure
    if (figure := figures.differences(comparisons.arms(rows))) is not None:
        svg = figures.save(figure, folder, "differences")
        drawn["differences"].append(f'<figure role=group aria-label="differences to the dense teacher">{svg}</figure>')

    # further ones of each task and student
    for (task, student), mine in tables.groups(rows).items():
        methods = tables.methods_of(mine)
        title = f"{title_of(task)}, student: {student}"
        if not methods:
            continue
        name = f"{task}_{student}".replace(" ", "_").replace("%", "percent").replace("(", "").replace(")", "")
        for kind, figure in _draw_group(figures, mine, methods, title):
            if figure is None:
                left_out.append(f"{kind} of {title}")
                continue
            text = words.curve_caption(data.trained_to_the_end(mine))
            caption = f"<figcaption>{text}</figcaption>" if kind == "curves" else ""
            svg = figures.save(figure, folder, f"{kind}_{name}")
            drawn[kind].append(f'<figure role=group aria-label="{html.escape(title)}">{svg}{caption}</figure>')
    return drawn, left_out


def run_drawn(rows: list[data.Row]) -> tuple[str, int, str]:
    """Method, seed and folder of the run whose training, units and scores are drawn: first lam 0.5's."""
    swept = [row for row in rows if row.is_swept]
    cut = [row for row in swept if row.teacher_sparsity]  # at 0 % one may be another method's
    return min(((row.method, row.seed, row.folder) for row in cut or swept), key=lambda run: (run[0] != "lam 0.5", run))


def _draw_group(figures, rows: list[data.Row], methods: list[str], title: str):
    """Each kind of figure of a task and student, None being one that shows nothing; the last three are of one run."""
    yield "curves", figures.sparsity_curves(rows, methods, title)
    if len(methods) > 1 and len({row.seed for row in rows}) > 1:  # else the curves show it
        yield "panels", figures.sparsity_panels(rows, methods, title)
    method, seed, path = run_drawn(rows)
    title = f"{title}, {method}, seed {seed}"
    run = RunFolder(Path(path))
    results = run.results()
    histories = {sparsity_of(name): result["history"] for name, result in results.items()}
    yield "training", figures.training_curves(histories, rows[0].metric, title)
    if teacher := data.sparse_teacher(run.path, run.settings(next(iter(results)))):
        config = argparse.Namespace(**read_json(teacher / "config.json"))
        widths = {int(s): kept_units(config, int(s)) for s in sorted(config.sparsity_map, key=int)}
        scores = load_file(teacher / "scores.safetensors")
        heads = {key.removeprefix("head_"): scores[key] for key in sorted(scores) if key.startswith("head_")}
        yield "kept", figures.kept_units(widths, title)
        yield "scores", figures.head_scores(heads, title)


def page(found: tuple[str, str], shown: list[tables.Table], drawn: dict[str, list[str]], left_out: list[str]) -> str:
    """One HTML page with everything in it: the conclusion and the curves, then tables, then the other figures."""

    def figures(kind: str) -> str:
        return f"<div class=figures>{''.join(drawn[kind])}</div>"

    def note(text: str) -> str:
        return f"<p class=note>{html.escape(text)}</p>" if text else ""

    sentence, limits = found
    parts = [f"<h1>{TITLE}</h1><p class=lead>{html.escape(sentence)}</p>"]
    for kind, text in (("differences", words.DIFFERENCES), ("curves", words.CURVES)):
        parts += [figures(kind), note(text)] if drawn[kind] else []
    parts += [note(limits), *map(tables.html_table, shown[:-1])]
    for kind, (title, text) in words.CLOSER.items():
        parts.append(f"<h2>{title}</h2>{note(text)}{figures(kind)}" if drawn[kind] else "")
    parts.append(note(f"Not drawn, being one value or all the same: {'; '.join(left_out)}." if left_out else ""))
    parts.append(tables.html_table(shown[-1]))
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f"<head>{meta}<title>{TITLE}</title><style>{STYLE}</style></head>"
    return f"<!doctype html><html lang=en>{head}<body>{''.join(parts)}</body></html>\n"


@entry_point(CheckpointError)
def main(argv=None):
    args = parse_args(argv)
    try:
        import matplotlib  # noqa: F401, an optional package
    except ImportError:
        raise InputError("no matplotlib for the figures: pip install matplotlib") from None
    found = list(data.checkpoints(map(Path, args.outputs)))
    folder = Path(args.report_dir)
    rows = data.collect(found)
    settings = data.settings(found)
    speeds, measured = measure(rows, not args.no_speed)
    folder.mkdir(parents=True, exist_ok=True)
    made, rows = rows, data.with_dense_ends(rows)
    resampled = comparisons.resampled_rows(data.trained_to_the_end(rows))
    shown = {
        "results": tables.results_table(rows, speeds, measured),
        "comparisons": comparisons.comparison_table(rows, True, resampled),
        "by_sparsity": comparisons.comparison_table(rows, False, resampled),
        "settings": tables.settings_table(settings),
    }
    drawn, left_out = draw(rows, folder)
    for name, table in shown.items():
        write_text(folder / f"{name}.md", tables.markdown(table))
    write_text(folder / "results.tex", tables.latex(shown["results"]))
    data.write_csv(folder / "results.csv", made)
    with_lines = [table for table in shown.values() if table.lines]
    write_text(folder / "index.html", page(words.conclusion(rows), with_lines, drawn, left_out))
    print(f"{len(rows)} numbers, {sum(map(len, drawn.values()))} figures: {folder / 'index.html'}")


if __name__ == "__main__":
    main()
