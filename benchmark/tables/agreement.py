"""What is as reported: verdicts, orders and rank agreement (Kendall's τ), and how sure that is. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.tables.budget import has_labels
from benchmark.tables.layout import Column, Row
from benchmark.tables.measured import Seeds, mean_std
from benchmark.tables.settled import Interval, over_images, over_seeds, shared_seeds

HEADS = (
    "Order as in the paper",
    "τ of the means",
    "τ seed by seed",
    "pairs settled",
    "τ of the means, without supervised",
    "τ of the means, methods only",
    "τ seed by seed, methods only",
    "pairs settled, methods only",
)
METHODS = "Neighbours in the paper's order, 95 % interval over seeds"
NETWORKS = (
    "With fewer than three seeds in common, networks are compared and not methods: neighbours in the paper's order, "
    "the first less the second, with the 95 % interval of the bootstrap over the test images, paired by image. It says "
    "nothing of other seeds."
)
EXPLAINED = (
    "Order: Kendall's τ-b between reported and measured numbers, 1 is the same order; of the means, and mean ± "
    "standard deviation of the seeds' own (number of seeds). Without supervised: without the reference row that was "
    "pretrained with labels. Methods only: without any row that frames the table, so without random too.",
    "A pair of rows is settled if the 95 % interval of its difference excludes 0: Student's t, paired by seed, with at "
    "least three seeds in common. With three, the interval is wide, so real gaps stay open; and of a hundred pairs "
    "without any difference it settles five.",
)


@dataclass(frozen=True)
class Compared:
    """A row with both numbers in a column. called: its title, with what tells it from other rows of that title."""

    row: Row
    reported: float
    measured: Seeds
    called: str


@dataclass(frozen=True)
class RowOrder:
    """tau:     of the means; None where one list is all ties, or has fewer than two rows.
    by_seed:    τ of each seed that gives one, over the `seeded` of `rows` that have all the seeds that any row has.
    pairs:      of rows. comparable: of those, with enough seeds in common to settle them.
    settled:    the keys of each pair that is. against: how many of those are in another order than the paper's.
    """

    rows: int
    tau: float | None
    by_seed: tuple[float, ...]
    seeded: int
    pairs: int
    comparable: int
    settled: tuple[tuple[str, str], ...]
    against: int


@dataclass(frozen=True)
class Agreement:
    """Of one measured column.

    without_supervised: without reference rows that were pretrained with labels. methods_only: without any other too.
    methods:  the differences of neighbours in the paper's order, over seeds, in words.
    networks: the same over test images, of those with too few seeds.
    unkept:   how many of these lack what each test image contributes. apart: how many have no seed in common.
    """

    title: str
    scale: str
    every_row: RowOrder
    without_supervised: RowOrder
    methods_only: RowOrder
    methods: tuple[str, ...]
    networks: tuple[str, ...]
    unkept: int
    apart: int


def agreement(title: str, scale: str, column: Column, compared: Sequence[Compared]) -> Agreement:
    """title: of the column where it stands. compared: in the table's order."""
    neighbours = list(itertools.pairwise(sorted(compared, key=lambda one: -one.reported)))
    methods = [_two_methods(*pair) for pair in neighbours]
    few = [pair for pair, text in zip(neighbours, methods, strict=True) if not text]
    together = [(a, b) for a, b in few if shared_seeds(a.measured, b.measured)]
    networks = [_two_networks(*pair, column) for pair in together]
    return Agreement(
        title,
        scale,
        order_of(compared),
        order_of([one for one in compared if not _is_supervised(one)]),
        order_of([one for one in compared if one.row.competes]),
        tuple(filter(None, methods)),
        tuple(filter(None, networks)),
        networks.count(""),
        len(few) - len(together),
    )


def _is_supervised(one: Compared) -> bool:
    """A method that uses a few labels competes, and is not what is meant."""
    return not one.row.competes and any(has_labels(record) for record in one.measured.records)


def order_of(compared: Sequence[Compared]) -> RowOrder:
    pairs = list(itertools.combinations(compared, 2))
    intervals = [(pair, over_seeds(pair[0].measured, pair[1].measured)) for pair in pairs]
    known = [(pair, interval) for pair, interval in intervals if interval]
    settled = [(pair, interval) for pair, interval in known if interval.excludes_zero]
    against = [(a.reported - b.reported) * interval.low < 0 for (a, b), interval in settled]
    by_seed, seeded = _by_seed(compared)
    return RowOrder(
        rows=len(compared),
        tau=_tau([(one.reported, one.measured.mean) for one in compared]),
        by_seed=by_seed,
        seeded=seeded,
        pairs=len(pairs),
        comparable=len(known),
        settled=tuple((a.row.key, b.row.key) for (a, b), _ in settled),
        against=sum(against),
    )


def _by_seed(compared: Sequence[Compared]) -> tuple[tuple[float, ...], int]:
    """τ seed by seed, and of how many rows: those that have the seeds of the row with most."""
    seeds: set[int] = max((set(one.measured.by_seed) for one in compared), key=len, default=set())
    full = [one for one in compared if seeds <= one.measured.by_seed.keys()]
    taus = (_tau([(one.reported, one.measured.by_seed[seed]) for one in full]) for seed in sorted(seeds))
    return tuple(tau for tau in taus if tau is not None), len(full)


def _tau(both: Sequence[tuple[float, float]]) -> float | None:
    return rank_agreement(*zip(*both, strict=True)) if len(both) > 1 else None


def _two_methods(one: Compared, other: Compared) -> str:
    """In words; empty with too few seeds in common."""
    interval = over_seeds(one.measured, other.measured)
    return f"{one.called} less {other.called} {_in_words(interval)}" if interval else ""


def _two_networks(one: Compared, other: Compared, column: Column) -> str:
    """In words; empty where nothing is known."""
    found = over_images(one.measured, other.measured, column)
    return f"{one.called} less {other.called}, seed {found.seed}, {_in_words(found.interval)}" if found else ""


def _in_words(interval: Interval) -> str:
    return f"{interval.gap:+.1f} ({interval.low:+.1f} to {interval.high:+.1f})"


def agreement_texts(one: Agreement) -> tuple[str, ...]:
    """Below HEADS."""
    left = one.without_supervised
    tau = _texts(left)[0] if left.rows < one.every_row.rows else "–"  # otherwise it would be the first τ again
    return one.title, *_texts(one.every_row), tau, *_texts(one.methods_only)


def _texts(order: RowOrder) -> tuple[str, str, str]:
    if order.rows < 2:
        return f"– ({order.rows} to compare)", "–", "–"
    tau = f"{'all tied' if order.tau is None else f'{order.tau:+.2f}'} ({order.rows} rows)"
    of = f", {order.seeded} rows" if order.seeded < order.rows else ""
    by_seed = f"{mean_std(order.by_seed, digits=2)}{of}" if len(order.by_seed) > 1 and order.seeded > 1 else "–"
    if not order.comparable:
        return tau, by_seed, "–"
    parts = [f"{len(order.settled)} of {order.pairs}"]
    parts += [f"{order.against} against the paper"] if order.against else []
    parts += [f"{few} with too few seeds"] if (few := order.pairs - order.comparable) else []
    return tau, by_seed, ", ".join(parts)


def first_line(agreements: Sequence[Agreement]) -> str:
    """What a table says first where it settles fewer than two pairs of rows; empty where it settles more, or nothing
    was measured. Scale by scale; a pair that is settled in several columns counts once."""
    found = []
    for scale, own in itertools.groupby(sorted(agreements, key=lambda one: one.scale), lambda one: one.scale):
        orders = [one.every_row for one in own]
        settled = {pair for one in orders for pair in one.settled}
        if not any(one.comparable for one in orders):
            found.append(f"No pair of rows is settled at {scale} scale, for that takes three seeds of both.")
        elif len(settled) < 2:
            found.append(f"Fewer than two pairs of rows are settled at {scale} scale ({len(settled)}).")
    return " ".join(found)


def differences_in_words(agreements: Sequence[Agreement]) -> list[str]:
    """Of methods, and of networks where there are too few seeds to know anything of methods: a line a column."""
    lines = [f"{METHODS}, {one.title}: {'; '.join(one.methods)}." for one in agreements if one.methods]
    networks = [f"These two networks, {one.title}: {'; '.join(one.networks)}." for one in agreements if one.networks]
    lines += [NETWORKS, *networks] if networks else []
    if unkept := [one.title for one in agreements if one.unkept]:
        why = "their records do not hold what each test image contributes: they are older, or their protocol keeps none"
        lines.append(f"No interval between networks with too few seeds in {'; '.join(unkept)}: {why}.")
    if apart := [one.title for one in agreements if one.apart]:
        lines.append(f"No interval between rows without a seed in common in {'; '.join(apart)}.")
    return lines


def reproduced(gap: float | None, tolerance: float | None) -> str:
    if gap is None or tolerance is None:
        return ""
    if abs(gap) <= tolerance + 1e-9:
        return f"reproduced within {tolerance:g}"
    return "above" if gap > 0 else "below"


def orders(pairs: Sequence[tuple[float, float] | None]) -> list[str]:
    """For each row, beside how many of the other rows it stands as reported: the values themselves do not compare."""
    texts = []
    for index, pair in enumerate(pairs):
        others = [other for at, other in enumerate(pairs) if other and at != index]
        if pair and others:
            same = sum((pair[0] > a) - (pair[0] < a) == (pair[1] > b) - (pair[1] < b) for a, b in others)
            texts.append(f"order {same}/{len(others)}")
        else:
            texts.append("")
    return texts


def rank_agreement(reported: Sequence[float], measured: Sequence[float]) -> float | None:
    """Kendall's τ-b of two lists of scores; None where one list is all ties and so has no order."""
    from scipy.stats import kendalltau  # a second to import, and only tables with measured numbers need it

    tau = float(kendalltau(reported, measured).statistic)
    return tau if tau == tau else None  # NaN is not equal to itself
