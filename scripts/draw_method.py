"""Draw the picture of the method in the README.

    python scripts/draw_method.py            # writes docs/method.svg

It is 640 units wide with letters of 22, to be legible on a phone, and has colours for light and dark pages. Squares are
attention heads and FFN neurons, rows are layers; the number of units cut from each layer is random.
"""

import argparse
import random
from pathlib import Path

WIDTH = 640
HEIGHT = 1010
STYLE = """
  text { font: 22px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
  .title { font-weight: 600; } .small { font-size: 20px; fill: #59636e; } .middle { text-anchor: middle; }
  .teacher { fill: #0072b2; } .student { fill: #d55e00; } .cut { fill: none; stroke: #0072b2; stroke-opacity: .7; }
  .line { stroke: #59636e; stroke-width: 2.5; fill: none; marker-end: url(#tip); } .tip { fill: #59636e; }
  .best { fill: none; stroke: #d55e00; stroke-width: 3; } .rule { stroke: #d1d9e0; stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; } .small { fill: #9198a1; } .tip { fill: #9198a1; } .line { stroke: #9198a1; }
    .teacher { fill: #56b4e9; } .cut { stroke: #56b4e9; } .student { fill: #ff9f40; } .best { stroke: #ff9f40; }
    .rule { stroke: #3d444d; }
  }
"""


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """A line of text; `kind` is its classes in STYLE."""
    return f'<text x="{x}" y="{y}" class="{kind}">{words}</text>'


def arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    """A straight arrow."""
    return f'<path d="M{x} {y}L{to_x} {to_y}" class="line"/>'


def units(x: float, y: float, layers: int, kind: str, cut: float = 0.0, size: int = 13, wide: int = 8) -> str:
    """A model as rows of squares; about a share `cut` of them is cut, the last ones of a layer, as after sorting."""
    rng = random.Random(layers + round(100 * cut))
    squares = []
    for layer in range(layers):
        kept = wide
        if cut:
            kept = max(0, min(wide, round(wide * (1 - cut) + rng.uniform(-1.6, 1.6))))
        for unit in range(wide):
            name = kind if unit < kept else "cut"
            position = f'x="{x + unit * (size + 3)}" y="{y + layer * (size + 3)}" width="{size}" height="{size}"'
            squares.append(f'<rect {position} rx="2" class="{name}"/>')
    return "".join(squares)


def trial() -> list[str]:
    """Stages 1 to 3: the dense teacher and the trial student."""
    return [
        text(20, 34, "1  Fine-tune", "title"),
        units(60, 56, 6, "teacher"),
        text(124, 180, "dense teacher", "middle small"),
        text(330, 34, "3  Distil, as a trial", "title"),
        arrow(210, 102, 396, 102),
        units(412, 80, 3, "student"),
        text(476, 180, "student: fewer layers,", "middle small"),
        text(476, 206, "or units pruned (stage 2)", "middle small"),
        '<path d="M20 236H620" class="rule"/>',
    ]


def scoring() -> list[str]:
    """Stage 4: the score of a unit, and how a sparse teacher follows from it."""
    return [
        text(20, 276, "4  Score each head and neuron of the teacher", "title"),
        text(20, 316, "If it is switched off, how far moves"),
        text(44, 352, "the task loss?"),
        text(620, 352, "expressive", "title end"),
        text(44, 388, "the distance to the trial student?"),
        text(620, 388, "friendly", "title end"),
        text(320, 436, "lam · expressive + (1 − lam) · friendly", "title middle"),
        arrow(320, 450, 320, 482),
        text(320, 508, "sort the units, cut the lowest: a sparse teacher", "middle"),
        '<path d="M20 536H620" class="rule"/>',
    ]


def rewinding() -> list[str]:
    """Stage 5: a sparse teacher and its student at each of four sparsities, the best one framed."""
    parts = [
        text(20, 576, "5  Rewind: distil again from sparse teachers,", "title"),
        text(20, 606, "each time from the student's initial weights", "title"),
    ]
    for column, percent in enumerate((0, 30, 60, 90)):
        left = 36 + 152 * column
        parts += [
            text(left + 53, 650, f"{percent} % cut", "middle"),
            units(left, 668, 6, "teacher", percent / 100, size=10),
            arrow(left + 52, 752, left + 52, 792),
            units(left, 808, 3, "student", size=10),
        ]
    # a frame around the student at 30 %, and the legend
    return [
        *parts,
        '<rect x="178" y="798" width="122" height="58" rx="8" class="best"/>',
        text(239, 892, "the best on dev", "middle"),
        '<path d="M20 922H620" class="rule"/>',
        '<rect x="20" y="944" width="16" height="16" rx="2" class="teacher"/>',
        text(46, 960, "kept (1 in the mask)", "small"),
        '<rect x="330" y="944" width="16" height="16" rx="2" class="cut"/>',
        text(356, 960, "cut (0 in the mask)", "small"),
        text(20, 992, "a row of squares is a layer, a square a head or neuron", "small"),
    ]


def picture() -> str:
    """The whole SVG."""
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5" markerHeight="5" orient="auto">'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>Fine-tune a teacher, distil a trial student, score the teacher's units, cut the lowest, distil again",
        f"</title><style>{STYLE}  .end {{ text-anchor: end; }}\n</style>",
        f'<defs>{tip}<path d="M0 0L8 4L0 8z" class="tip"/></marker></defs>',
        *(part for step in (trial, scoring, rewinding) for part in step()),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="docs/method.svg", help="(default docs/method.svg)")
    Path(parser.parse_args(argv).output).write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
