"""Draws docs/architecture.svg: what flows from a recipe and a folder of images to a table.

    python docs/figures/architecture.py [other.svg or other.png]

The card has a light ground of its own, so that the figure reads on light and dark pages alike.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

INK, SOFT, GROUND = "#1f2328", "#57606a", "#ffffff"
FILL = {"written": "#ffe2c2", "contract": "#e4ddff", "harness": "#d3e5ff", "file": "#d5f0d8"}
EDGE = {"written": "#b35900", "contract": "#6e49cb", "harness": "#0b5cad", "file": "#1a7f37"}
COLUMNS = {"A": 1.25, "B": 4.15, "C": 7.05, "D": 9.95}
ROWS = {1: 5.15, 2: 3.75, 3: 2.35, 4: 0.95}
WIDTH, HEIGHT = 2.3, 0.86

BOXES = {  # place: (kind, title, line below)
    "A1": ("written", "recipes/x.py", "one method, the paper's values"),
    "B1": ("contract", "Recipe · Settings · Method", "at paper, photos or desk scale"),
    "C1": ("harness", "benchmark/engine", "the only pretraining loop"),
    "D1": ("file", "backbone.safetensors", "weights, input spec, origin"),
    "A2": ("file", "datasets, in their layouts", "--data DIR, or drawn: Toyland"),
    "B2": ("contract", "ImageSet · loader", "order(seed, epoch), views"),
    "A3": ("written", "benchmark/transfers/y.py", "one protocol, all its settings"),
    "B3": ("contract", "Transfer · ProtocolCard", "frozen? selected on what?"),
    "C3": ("harness", "benchmark/runs", "loads, scores, checks"),
    "D3": ("file", "record <transfer>.json", "scores with provenance"),
    "A4": ("written", "leaderboards/", "reported/*.csv, tables.toml"),
    "C4": ("harness", "benchmark/tables", "reported beside measured"),
    "D4": ("file", "tables (markdown)", "one column per scale and version"),
}
ARROWS = [  # from, to, what passes
    ("A1", "B1", ""),
    ("B1", "C1", ""),
    ("C1", "D1", ""),
    ("A2", "B2", ""),
    ("B2", "C1", "batches: views and\nindices, no labels"),
    ("B2", "C3", "images and labels"),
    ("D1", "C3", "strict load"),
    ("A3", "B3", ""),
    ("B3", "C3", ""),
    ("C3", "D3", ""),
    ("A4", "C4", ""),
    ("D3", "C4", "from runs, or\npublished"),
    ("C4", "D4", ""),
]
KINDS = {"written": "files you write", "contract": "contracts", "harness": "harness", "file": "files on disk"}


def centre(place: str) -> tuple[float, float]:
    return COLUMNS[place[0]], ROWS[int(place[1])]


def box(axes: Axes, place: str) -> None:
    kind, title, below = BOXES[place]
    x, y = centre(place)
    corner = (x - WIDTH / 2, y - HEIGHT / 2)
    outline = FancyBboxPatch(corner, WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.1")
    outline.set(facecolor=FILL[kind], edgecolor=EDGE[kind], linewidth=1.3, zorder=3)
    axes.add_patch(outline)
    axes.text(x, y + 0.15, title, ha="center", va="center", fontsize=9.4, weight="bold", color=INK, zorder=4)
    axes.text(x, y - 0.18, below, ha="center", va="center", fontsize=8.2, color=INK, zorder=4)


def arrow(axes: Axes, start: str, end: str, label: str) -> None:
    (x0, y0), (x1, y1) = centre(start), centre(end)
    right = 1 if x1 > x0 else -1
    if y0 == y1:
        tail, head = (x0 + WIDTH / 2, y0), (x1 - WIDTH / 2, y1)
    else:  # between rows: out of the side towards the target, into its top or bottom edge a little off the middle
        up = 1 if y1 > y0 else -1
        tail = (x0 + right * WIDTH / 2, y0) if start == "B2" else (x0 - 0.35, y0 + up * HEIGHT / 2)
        head = (x1 - right * 0.45, y1 - up * HEIGHT / 2)
    axes.annotate(
        "",
        head,
        tail,
        arrowprops={"arrowstyle": "-|>", "color": SOFT, "linewidth": 1.5, "mutation_scale": 13},
        zorder=2,
    )
    if label:
        x, y = (tail[0] + head[0]) / 2, (tail[1] + head[1]) / 2
        ground = {"facecolor": GROUND, "edgecolor": "none", "pad": 1.2}
        axes.text(
            x, y, label, ha="center", va="center", fontsize=8, color=INK, bbox=ground, zorder=2.5, linespacing=1.1
        )


def legend(axes: Axes) -> None:
    for number, (kind, text) in enumerate(KINDS.items()):
        x = 0.3 + 2.2 * number
        mark = FancyBboxPatch((x, 6.02), 0.26, 0.2, boxstyle="round,pad=0,rounding_size=0.05")
        mark.set(facecolor=FILL[kind], edgecolor=EDGE[kind], linewidth=1.1)
        axes.add_patch(mark)
        axes.text(x + 0.36, 6.12, text, va="center", fontsize=8.6, color=INK)


def draw(path: Path) -> None:
    with mpl.rc_context({"svg.hashsalt": "sslbench", "font.family": "DejaVu Sans"}):
        figure, axes = plt.subplots(figsize=(10.4, 6.0))
        figure.subplots_adjust(left=0, right=1, bottom=0, top=1)
        figure.patch.set_alpha(0)
        axes.set(xlim=(0, 11.2), ylim=(0.2, 6.5))
        axes.axis("off")
        card = FancyBboxPatch((0.03, 0.25), 11.14, 6.2, boxstyle="round,pad=0,rounding_size=0.15", zorder=0)
        card.set(facecolor=GROUND, edgecolor="#d0d7de", linewidth=1)
        axes.add_patch(card)
        legend(axes)
        for place in BOXES:
            box(axes, place)
        for start, end, label in ARROWS:
            arrow(axes, start, end, label)
        dateless = {"Date": None} if path.suffix == ".svg" else None  # the same drawing gives the same bytes
        figure.savefig(path, metadata=dateless, dpi=110)
        plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "architecture.svg")
