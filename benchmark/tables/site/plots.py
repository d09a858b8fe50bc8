"""Plots of a table, as SVG that takes its ink from the page: lines over layers, or bars, scores by the year of their
method, and reported against measured."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, groupby
from typing import Any

from benchmark.tables.agreement import rank_agreement
from benchmark.tables.board import Board, Cell
from benchmark.tables.layout import Column
from benchmark.tables.ledger import Name

INK, FAINT = "#010203", "#040506"  # stand-ins for the page's colours
COLOURS = ("#2a78d6", "#d9602b", "#2e9e6b", "#b4508f", "#c79a1a", "#6b6fd0", "#4aa3b8", "#a3543c", "#7d8a2e", "#8a8f98")
STYLE: Any = {
    "font.size": 9,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "svg.hashsalt": "sslbench",
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), INK),
    "grid.color": FAINT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}
WIDTH = 6.4  # inches
YEARS = 3  # two are no course of time
LABEL = 18  # characters
Cells = tuple[Cell, ...]


def plots(board: Board, methods: Mapping[str, Name]) -> list[tuple[str, str]]:
    """(caption, SVG) of each plot of a table. methods: those of names.csv, which has their years."""
    import matplotlib as mpl

    lines = [line for index, line in enumerate(board.lines) if index not in board.differences]
    with mpl.rc_context(STYLE):
        if board.layout.plot == "lines":
            return [_curves(board, lines, scale) for scale in ("", *sorted({one.scale for one in board.heads} - {""}))]
        score = _first_score(board)
        scatters = [_scatter(title, pairs) for title, pairs in _measured(board, lines)]
        if score is None:
            return scatters
        return [_bars(board.heads[score].title, lines, score), *_by_year(board, lines, score, methods), *scatters]


@contextmanager
def _figure(into: list[str], left: float, right: float, height: float = 3.6) -> Iterator[Any]:
    """Axes to draw on; their SVG goes into `into`. left, right: room for words, in characters. Laid out by that and not
    by matplotlib, which would draw everything twice to measure it."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasSVG(figure)
    start, end = (0.075 * left + 0.1) / WIDTH, 1 - (0.075 * right + 0.1) / WIDTH
    yield figure.add_axes((start, 0.45 / height, end - start, 1 - 0.75 / height))
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    into.append(svg[svg.index("<svg") :].replace(INK, "currentColor").replace(FAINT, "var(--line)"))


def _first_score(board: Board) -> int | None:
    """The first reported column in which something is best, else the first reported one."""
    reported = [index for index, head in enumerate(board.heads) if head.kind == "reported"]
    scored = [index for index in reported if _column(board, index).best != "none"]
    return next(iter(scored or reported), None)


def _column(board: Board, index: int) -> Column:
    return next(column for column in board.layout.columns if column.title == board.heads[index].column)


def _curves(board: Board, lines: list[Cells], scale: str) -> tuple[str, str]:
    """A line a row over the columns: the reported numbers, or those measured at a scale."""
    kind = "measured" if scale else "reported"
    columns = [at for at, head in enumerate(board.heads) if head.kind == kind and head.scale == scale]
    svg: list[str] = []
    with _figure(svg, 6, 2 + max(len(line[0].text) for line in lines)) as axes:
        for at, line in enumerate(lines):
            points = [(x, line[index].number) for x, index in enumerate(columns) if line[index].number is not None]
            if points:
                style = {"color": COLOURS[at % len(COLOURS)], "linestyle": "-" if at < len(COLOURS) else "--"}
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3.5, label=line[0].text, **style)
        axes.set_xticks(range(len(columns)), [board.heads[index].column for index in columns])
        axes.legend(fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return f"{f'Measured at {scale} scale' if scale else 'Reported'}, by column.", svg[0]


def _bars(title: str, lines: list[Cells], score: int) -> tuple[str, str]:
    shown = [(line[0].text, line[score].number) for line in reversed(lines) if line[score].number is not None]
    svg: list[str] = []
    with _figure(svg, 2 + max(len(name) for name, _ in shown), 2, max(1.6, 0.9 + 0.21 * len(shown))) as axes:
        axes.barh(range(len(shown)), [number for _, number in shown], color=COLOURS[0], height=0.7)
        axes.set_yticks(range(len(shown)), [name for name, _ in shown])
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.grid(axis="y", visible=False)
    return f"{title}.", svg[0]


def _of_year(lines: list[Cells], score: int, years: Sequence[str]) -> dict[int, list[tuple[float, str]]]:
    """Year -> (score, method) in order, of lines with both. years: of each line, or ""."""
    found = [(year, line[score].number, line[0].text) for year, line in zip(years, lines, strict=True)]
    dated = sorted((int(year), number, name) for year, number, name in found if year and number is not None)
    return {year: [one[1:] for one in same] for year, same in groupby(dated, lambda one: one[0])}


def _by_year(board: Board, lines: list[Cells], score: int, methods: Mapping[str, Name]) -> Iterator[tuple[str, str]]:
    """One plot, where there are enough years."""
    years = [methods[row.method].year if row.method in methods else "" for row in board.layout.rows]
    of_year = _of_year(lines, score, years)
    if len(of_year) < YEARS:
        return
    numbers = [number for found in of_year.values() for number, _ in found]
    best = min if _column(board, score).best == "lowest" else max
    so_far = list(accumulate((best(number for number, _ in found) for found in of_year.values()), best))
    gap = ((max(numbers) - min(numbers)) or 1) / 20  # a line of text
    top = max(numbers)
    svg: list[str] = []
    with _figure(svg, 5, 2, 4.2) as axes:
        axes.step([*of_year, max(of_year) + 1], [*so_far, so_far[-1]], where="post", color=COLOURS[1], linewidth=1)
        for year, found in of_year.items():
            axes.plot([year] * len(found), [number for number, _ in found], "o", color=COLOURS[0], markersize=5)
            height = -math.inf
            for number, name in found:
                height = max(number, height + gap)  # names of close numbers stand one above the other
                text = name if len(name) <= LABEL else f"{name[: LABEL - 1]}…"
                axes.text(year + 0.06, height + gap / 5, text, fontsize=7, color=INK)  # above the line
            top = max(top, height)
        axes.set_xlim(min(of_year) - 0.3, max(of_year) + 1)
        axes.set_ylim(min(numbers) - gap, top + 1.5 * gap)
        axes.set_xticks(range(min(of_year), max(of_year) + 1))
    yield f"{board.heads[score].title}, by the year of the method; the line is the best so far.", svg[0]


Pairs = list[tuple[float, float, str]]  # reported, measured, method


def _measured(board: Board, lines: list[Cells]) -> Iterator[tuple[str, Pairs]]:
    """(title, pairs) of every measured column with two methods or more."""
    at = {head.column: index for index, head in enumerate(board.heads) if head.kind == "reported"}
    for index, head in enumerate(board.heads):
        if head.kind == "measured":
            cells = [(line[at[head.column]].number, line[index].number, line[0].text) for line in lines]
            pairs = sorted((a, b, name) for a, b, name in cells if a is not None and b is not None)
            if len(pairs) > 1:
                yield head.title, pairs


def _scatter(title: str, pairs: Pairs) -> tuple[str, str]:
    svg: list[str] = []
    with _figure(svg, 9, 2) as axes:
        for at, (reported, measured, name) in enumerate(pairs):
            axes.plot(reported, measured, "o", color=COLOURS[0], markersize=6)
            beside = (5, 4 if at % 2 else -11)  # above and below in turn, for neighbours are close
            axes.annotate(name, (reported, measured), beside, textcoords="offset points", fontsize=8, color=INK)
        axes.set_xlabel("reported")
        axes.set_ylabel("measured")
        axes.margins(0.15)
    tau = rank_agreement([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    agreement = "– (all tied)" if tau is None else f"{tau:+.2f}"
    return f"{title}, against reported: rank agreement (Kendall's τ) {agreement}.", svg[0]
