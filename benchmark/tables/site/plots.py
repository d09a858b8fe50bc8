"""Plots of a table, as SVG that takes its ink from the page, and narrow enough to be read on a phone: reported beside
measured, lines over layers or bars, and scores by the year of their method. Error bars: standard deviation over seeds.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmark.tables.board import Board, Cell
from benchmark.tables.layout import Column
from benchmark.tables.ledger import Name

INK, FAINT = "#010203", "#040506"  # stand-ins for the page's colours
PAPER_INK, PAPER_FAINT = "#1f2328", "#d8dee4"  # without a page
COLOURS = ("#2a78d6", "#d9602b", "#2e9e6b", "#b4508f", "#c79a1a", "#6b6fd0", "#4aa3b8", "#a3543c", "#7d8a2e", "#8a8f98")
STYLE: Any = {
    "font.size": 8.5,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "svg.hashsalt": "sslbench",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8.5,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), INK),
    "grid.color": FAINT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "errorbar.capsize": 2,
}
WIDTH = 3.6  # inches: on a phone, of 390 px, an inch is 100 px and the words are 12 px high
LETTER = 0.066  # inches
CURVES = WIDTH - 0.4 - 0.12  # inches that a plot of curves has for its columns
YEARS = 3  # two are no course of time
NAME = 20  # characters in a line of a name
Cells = tuple[Cell, ...]


@dataclass(frozen=True)
class Plot:
    caption: str
    svg: str

    @property
    def file(self) -> str:
        """By itself, without a page whose colours it could take."""
        style = f'<svg style="color:{PAPER_INK};background:#fff;font-family:sans-serif" '
        return self.svg.replace("<svg ", style, 1) + "\n"


def plots(board: Board, methods: Mapping[str, Name]) -> list[Plot]:
    """What was measured first. methods: those of names.csv, which has their years."""
    import matplotlib as mpl

    lines = _rows(board)
    with mpl.rc_context(STYLE):
        if board.layout.plot == "lines":
            scales = sorted({one.scale for one in board.heads} - {""})
            return [one for scale in (*scales, "") for one in _curves(board, lines, scale)]
        measured = dict.fromkeys(head.column for head in board.heads if head.kind == "measured")
        found = [_beside(board, lines, column) for column in measured]
        score = _first_score(board)
        if score is None:
            return found
        return [*found, _bars(board.heads[score].title, lines, score), *_by_year(board, lines, score, methods)]


def headline(boards: Mapping[str, Board]) -> tuple[str, Plot] | None:
    """The column of all tables with the most measured numbers: (key of its table, the plot)."""
    import matplotlib as mpl

    counts = {
        (key, column.title): sum(
            line[at].number is not None
            for at, head in enumerate(board.heads)
            if head.kind == "measured" and head.column == column.title
            for line in _rows(board)
        )
        for key, board in boards.items()
        for column in board.layout.columns
    }
    key, column = max(counts, key=lambda one: counts[one], default=("", ""))
    if not counts.get((key, column)):
        return None
    with mpl.rc_context(STYLE):
        return key, _beside(boards[key], _rows(boards[key]), column)


def _rows(board: Board) -> list[Cells]:
    return [line for index, line in enumerate(board.lines) if index not in board.differences]


@contextmanager
def _figure(into: list[str], left: float, height: float, panels: int = 1, below: float = 0.3) -> Iterator[list[Any]]:
    """Panels beside each other to draw on; their SVG goes into `into`. left, below: room for words, in inches. Laid out
    by that and not by matplotlib, which would draw everything twice to measure it."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasSVG(figure)
    gap, end = 0.28, 0.12
    wide = (WIDTH - left - end - gap * (panels - 1)) / panels
    places = ((left + at * (wide + gap)) / WIDTH for at in range(panels))
    yield [figure.add_axes((x, below / height, wide / WIDTH, 1 - (below + 0.3) / height)) for x in places]
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    into.append(
        svg[svg.index("<svg") :].replace(INK, "currentColor").replace(FAINT, f"var(--line, {PAPER_FAINT})").rstrip()
    )


def _first_score(board: Board) -> int | None:
    """The first reported column in which something is best, else the first reported one."""
    reported = [index for index, head in enumerate(board.heads) if head.kind == "reported"]
    scored = [index for index in reported if _column(board, index).best != "none"]
    return next(iter(scored or reported), None)


def _column(board: Board, index: int) -> Column:
    return next(column for column in board.layout.columns if column.title == board.heads[index].column)


def _named(name: str) -> str:
    """In two lines at most."""
    lines = textwrap.wrap(name, NAME, max_lines=2, placeholder="…", break_on_hyphens=False)
    return "\n".join(lines)


def _name_rows(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)  # the first row on top
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def _room(names: Sequence[str]) -> tuple[float, float]:
    """(left of the axes, for all rows), in inches."""
    lines = [line for name in names for line in name.split("\n")]
    rows = [0.2 + 0.14 * name.count("\n") for name in names]
    apart = max(((one + other) / 2 for one, other in pairwise(rows)), default=rows[0])  # all rows alike
    return 0.12 + LETTER * max(map(len, lines)), apart * len(rows)


def _few_ticks(axes: Any, steps: int = 3) -> None:
    from matplotlib.ticker import MaxNLocator

    steps = 1 if axes.get_position().width * WIDTH < 0.8 else steps
    axes.xaxis.set_major_locator(MaxNLocator(steps, steps=[1, 2, 2.5, 5, 10], min_n_ticks=min(steps, 2)))


def _beside(board: Board, lines: list[Cells], column: str) -> Plot:
    """Of the rows that were measured, a panel with what is reported and one for each time they were measured: each with
    its own axis, for only the orders compare. In the reported order, the best on top."""
    own = [at for at, head in enumerate(board.heads) if head.column == column]
    measured = [at for at in own if board.heads[at].kind == "measured"]
    panels = [next(at for at in own if board.heads[at].kind in ("reported", "computed")), *measured]
    lowest = _column(board, panels[0]).best == "lowest"

    def rank(line: Cells) -> tuple[float, ...]:
        numbers = [line[at].number for at in panels]
        return tuple(math.inf if one is None else one if lowest else -one for one in numbers)

    shown = sorted((line for line in lines if any(line[at].number is not None for at in measured)), key=rank)
    names = [_named(line[0].text) for line in shown]
    left, height = _room(names)
    svg: list[str] = []
    with _figure(svg, left, height + 0.65, len(panels)) as all_axes:
        for axes, at, colour in zip(all_axes, panels, (INK, *COLOURS), strict=False):
            found = [(y, line[at]) for y, line in enumerate(shown) if line[at].number is not None]
            places, cells = [y for y, _ in found], [cell for _, cell in found]
            numbers, spread = [cell.number for cell in cells], [cell.std or 0 for cell in cells]
            axes.errorbar(numbers, places, xerr=spread, fmt="o", color=colour, markersize=3, elinewidth=1.2)
            _name_rows(axes, names if at == panels[0] else [""] * len(names))
            axes.grid(axis="y", visible=True)  # leads the eye from panel to panel
            axes.set_title(board.heads[at].title.removeprefix(f"{column}, "))
            axes.margins(x=0.15)
            _few_ticks(axes, 2)
    return Plot(f"{column}: {_what_panels_show(board, measured)}", svg[0])


def _what_panels_show(board: Board, measured: Sequence[int]) -> str:
    taus = {one.title: one.every_row.tau for one in board.agreements if one.every_row.rows > 1}
    titles = [board.heads[at].title for at in measured]
    told = [f"{title.rpartition(', ')[2]} {_tau(taus[title])}" for title in titles if title in taus]
    order = f" Rank agreement (Kendall's τ): {', '.join(told)}." if told else ""
    seeds = any(cell.std is not None for line in board.lines for at in measured for cell in [line[at]])
    bars = " with the standard deviation over seeds" if seeds else ", of one seed"
    return f"what was measured against reported{bars}. Each panel has its own axis: compare orders.{order}"


def _tau(tau: float | None) -> str:
    return "– (all tied)" if tau is None else f"{tau:+.2f}"


def _curves(board: Board, lines: list[Cells], scale: str) -> Iterator[Plot]:
    """A line a row over the columns: the reported numbers, or those measured at a scale. None without a number.
    A row has one colour in all of them."""
    kind = "measured" if scale else "reported"
    columns = [at for at, head in enumerate(board.heads) if head.kind == kind and head.scale == scale]
    drawn = [(place, line) for place, line in enumerate(lines) if any(line[at].number is not None for at in columns)]
    if not drawn:
        return
    names, of_all = _without_what_all_begin_with([board.heads[at].column for at in columns])
    names = [textwrap.fill(name, 14) for name in names]
    longest = LETTER * max(len(text) for name in names for text in name.split("\n"))
    is_upright = longest > 0.9 * CURVES / len(columns)
    legend, labels = 0.17 * math.ceil(len(drawn) / 2), 0.15 + (longest if is_upright else 0.3)
    svg: list[str] = []
    with _figure(svg, 0.4, 2.4 + labels + legend, below=0.15 + labels + legend) as (axes,):
        for place, line in drawn:
            found = [(x, line[index]) for x, index in enumerate(columns) if line[index].number is not None]
            linestyle, marker = ("-", "o") if place < len(COLOURS) else ("--", "s")
            axes.errorbar(
                [x for x, _ in found],
                [cell.number for _, cell in found],
                [cell.std or 0 for _, cell in found],
                color=COLOURS[place % len(COLOURS)],
                linestyle=linestyle,
                marker=marker,
                markersize=3.5,
                label=textwrap.shorten(line[0].text, 24, placeholder="…"),
            )
        axes.set_xticks(range(len(columns)), names, rotation=90 if is_upright else 0)
        axes.set_xlabel(of_all, labelpad=1)
        axes.legend(
            fontsize=7.5,
            ncols=2,
            loc="upper center",
            bbox_to_anchor=(0.45, -labels / (2.4 - 0.45)),
            columnspacing=1,
            handlelength=2.3,
        )
    told = f"Measured at {scale} scale, with the standard deviation over seeds" if scale else "Reported"
    yield Plot(f"{told}, by column.", svg[0])


def _without_what_all_begin_with(names: Sequence[str]) -> tuple[list[str], str]:
    """("K = 64", "K = 256") -> (["64", "256"], "K"), so that many columns have room."""
    parts = [name.split(" = ", 1) for name in names]
    quantities = {part[0] if len(part) == 2 else "" for part in parts}
    if len(quantities) != 1 or quantities == {""}:
        return list(names), ""
    return [part[1] for part in parts], quantities.pop()


def _bars(title: str, lines: list[Cells], score: int) -> Plot:
    shown = [line for line in lines if line[score].number is not None]
    names = [_named(line[0].text) for line in shown]
    left, height = _room(names)
    svg: list[str] = []
    with _figure(svg, left, height + 0.65) as (axes,):
        axes.barh(range(len(shown)), [line[score].number for line in shown], color=COLOURS[0], height=0.7)
        _name_rows(axes, names)
        _few_ticks(axes)
    return Plot(f"{title}.", svg[0])


def _by_year(board: Board, lines: list[Cells], score: int, methods: Mapping[str, Name]) -> Iterator[Plot]:
    """A row a method, by year; one plot, where there are enough years."""
    years = [methods[row.method].year if row.method in methods else "" for row in board.layout.rows]
    found = [(year, line[score].number, line[0].text) for year, line in zip(years, lines, strict=True)]
    lowest = _column(board, score).best == "lowest"
    dated = [(int(year), number, name) for year, number, name in found if year and number is not None]
    dated.sort(key=lambda one: (one[0], -one[1] if lowest else one[1], one[2]))
    if len({year for year, _, _ in dated}) < YEARS:
        return
    names = [_named(f"{year} {name}") for year, _, name in dated]
    left, height = _room(names)
    best = min if lowest else max
    numbers = [number for _, number, _ in dated]
    so_far = [best(numbers[: at + 1]) for at in range(len(numbers))]
    svg: list[str] = []
    with _figure(svg, left, height + 0.65) as (axes,):
        corners = [(number, at + half) for at, number in enumerate(so_far) for half in (-0.5, 0.5)]
        axes.plot(*zip(*corners, strict=True), color=COLOURS[1], linewidth=1)
        axes.plot(numbers, range(len(numbers)), "o", color=COLOURS[0], markersize=4.5)
        _name_rows(axes, names)
        _few_ticks(axes)
    yield Plot(f"{board.heads[score].title}, by the year of the method; the line is the best so far.", svg[0])
