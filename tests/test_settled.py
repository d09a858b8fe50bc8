"""What tables say of two rows: over seeds, over test images, and in words; recomputed from the records otherwise."""

from __future__ import annotations

import dataclasses
import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from test_results import a_record
from test_tables import ALL, a_layout, cells, measured, reported, table

from benchmark.core.errors import UserError
from benchmark.gate.check import current_boards
from benchmark.records.metric import PERCENT
from benchmark.records.per_image import KEY, kept_per_image, per_image
from benchmark.records.record import Record, read_record
from benchmark.records.soundness import faults
from benchmark.tables.agreement import RowOrder
from benchmark.tables.board import Board, Legend, board
from benchmark.tables.budget import budgets
from benchmark.tables.layout import Column, Row
from benchmark.tables.ledger import LEADERBOARDS
from benchmark.tables.measured import Seeds, measured_scores
from benchmark.tables.settled import bootstrapped, over_images, over_seeds

TOP1 = Column("X", metric="top1")


def seeds(*values: float) -> Seeds:
    return Seeds(tuple(a_record(seed=seed) for seed in range(len(values))), values)


def held(recipe: str, right: np.ndarray, seed: int = 0) -> Record:
    """One record that says of every test image whether it was right."""
    score = 100 * float(right.mean())
    return a_record(recipe=recipe, transfer="probe", seed=seed, metrics={"top1": score}, detail=kept({"top1": right}))


def kept(values: dict[str, np.ndarray]) -> dict:
    return kept_per_image(values)


# over seeds

scores = st.lists(st.floats(0, 100), min_size=6, max_size=16).filter(lambda found: len(found) % 2 == 0)


@given(scores)
def test_the_interval_over_seeds_is_scipys(values: list[float]):
    half = len(values) // 2
    ours, theirs = values[:half], values[half:]
    found = over_seeds(seeds(*ours), seeds(*theirs))
    assert found
    if np.std(np.subtract(ours, theirs)) > 1e-6:
        wanted = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-6)


def test_fewer_than_three_seeds_in_common_settle_nothing():
    assert over_seeds(seeds(90.0, 91.0), seeds(1.0, 2.0)) is None
    assert over_seeds(seeds(90.0), seeds(1.0)) is None
    assert (found := over_seeds(seeds(90.0, 91.0, 90.5), seeds(1.0, 2.0, 1.2)))
    assert found.excludes_zero


# over test images


def every_draw(gaps: np.ndarray) -> tuple[float, float]:
    """The percentiles of all N ** N draws of N."""
    means = [np.mean(draw) for draw in itertools.product(gaps, repeat=len(gaps))]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.parametrize("gaps", [(100, 0, 0, -100, 100), (3.0, 1.5, -2.0, 0.25, 7.0, 1.0)])
def test_the_bootstrap_is_that_of_every_draw(gaps: tuple[float, ...]):
    found, (low, high) = bootstrapped(np.array(gaps, dtype=float)), every_draw(np.array(gaps, dtype=float))
    spread = np.std(gaps) / math.sqrt(len(gaps))
    assert found.low == pytest.approx(low, abs=0.15 * spread)
    assert found.high == pytest.approx(high, abs=0.15 * spread)


def test_the_bootstrap_is_scipys_and_the_same_every_time():
    rng = np.random.default_rng(1)
    ours, theirs = rng.random(800) < 0.7, rng.random(800) < 0.6
    gaps = 100.0 * (ours.astype(float) - theirs)
    found = bootstrapped(gaps)
    wanted = stats.bootstrap((gaps,), np.mean, method="percentile", n_resamples=20_000, rng=2).confidence_interval
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.15)
    assert bootstrapped(gaps) == found


def test_draws_in_blocks_are_those_of_one_draw():
    """Of eighths, so that sums are exact in any order."""
    gaps = np.random.default_rng(3).integers(-800, 800, 60) / 8
    values, counts = np.unique(gaps, return_counts=True)
    together = np.random.RandomState(0).multinomial(60, counts / 60, size=10_000) @ values / 60
    found = bootstrapped(gaps)
    assert (found.low, found.high) == tuple(np.quantile(together, [(1 - 0.95) / 2, (1 + 0.95) / 2]))


def test_the_draws_of_many_values_are_not_held_at_once():
    gaps = np.random.default_rng(4).normal(size=1_000)
    tracemalloc.start()
    bootstrapped(gaps)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6, "all 10,000 draws of 1,000 would be 80 MB"


def test_images_are_paired():
    """Both networks are right on half of the images: on the same ones, one more settles it; on others, nothing does."""
    half = np.arange(1000) < 500
    better = half | (np.arange(1000) >= 990)
    ours = Seeds((held("a", better),), (51.0,))
    same, turned = (Seeds((held("b", right),), (50.0,)) for right in (half, half[::-1]))
    assert (paired := over_images(ours, same, TOP1))
    assert paired.interval.low > 0
    assert paired.interval.gap == pytest.approx(1.0)
    assert (paired.images, paired.seed) == (1000, 0)
    assert (apart := over_images(ours, turned, TOP1))
    assert apart.interval.low < 0 < apart.interval.high


def test_without_what_each_image_contributes_there_is_no_interval():
    assert over_images(Seeds((held("a", np.ones(4, bool)),), (100.0,)), seeds(50.0), TOP1) is None


def test_every_seed_in_common_is_tried():
    right = np.arange(100) < 60
    ours = Seeds((a_record(seed=0), held("a", right, seed=1)), (60.0, 60.0))
    theirs = Seeds((held("b", ~right, seed=0), held("b", ~right, seed=1)), (40.0, 40.0))
    assert (found := over_images(ours, theirs, TOP1))
    assert (found.seed, found.interval.gap) == (1, pytest.approx(20.0))


# what a record keeps

values = st.lists(st.booleans(), min_size=1, max_size=70)


@given(values)
def test_right_and_wrong_come_back_as_percent(right: list[bool]):
    record = held("a", np.array(right))
    found = per_image(record, "top1")
    assert found is not None
    assert found.tolist() == [100.0 * one for one in right]
    assert found.mean() == pytest.approx(record.metrics["top1"])


def test_fifty_thousand_images_are_small():
    right = np.random.default_rng(0).random(50_000) < 0.6
    record = held("a", right)
    bare = dataclasses.replace(record, detail={})
    assert len(record.to_bytes()) - len(bare.to_bytes()) < 8_500
    moved = kept({"map": np.random.default_rng(0).normal(50, 20, 4_952)})
    assert len(dataclasses.replace(record, detail=moved).to_bytes()) - len(bare.to_bytes()) < 27_000


def test_the_metric_of_a_protocol_that_chooses_a_stage_is_that_stages():
    right = {"res4": np.array([True, False, False]), "res5": np.array([True, True, False])}
    detail = {"per_stage": {"res4": 33.3, "res5": 66.7}, "selected": {"stage": "res5"}} | kept(right)
    record = a_record(metrics={"top1": 66.7}, detail=detail)
    assert (chosen := per_image(record, "top1")) is not None
    assert chosen.tolist() == [100, 100, 0]
    assert (early := per_image(record, "res4")) is not None
    assert early.tolist() == [100, 0, 0]
    assert per_image(record, "res3") is None, "an unknown stage is not the chosen one"


@pytest.mark.parametrize("text", [7, "bits !", "bits AAAA", "float32 AAAA", "zip AA==", ""])
def test_broken_text_is_named(text: object):
    record = a_record(metrics={"top1": 1.0}, detail={KEY: {"images": 3, "top1": text}})
    with pytest.raises(UserError, match="what its detail holds per image under 'top1' is broken"):
        per_image(record, "top1")


def test_what_a_record_keeps_must_come_to_its_scores():
    record = held("a", np.arange(10) < 6)
    assert list(faults(record, {"top1": PERCENT})) == []
    other = dataclasses.replace(record, metrics={"top1": 61.0})
    assert list(faults(other, {"top1": PERCENT})) == ["top1 is 61, but its images come to 60"]
    detail = {"per_stage": {"res5": 60.0, "res4": 61.0}} | kept({"res4": np.arange(10) < 6, "res5": np.arange(10) < 6})
    staged = dataclasses.replace(record, detail=detail)
    assert list(faults(staged, {"top1": PERCENT})) == ["res4 is 61, but its images come to 60"]
    broken = dataclasses.replace(record, detail={KEY: {"images": 10, "top1": "bits AA"}})
    assert "is broken" in " ".join(faults(broken, {"top1": PERCENT}))


# in the table


def test_one_seed_compares_networks_and_counts_nothing():
    images = np.arange(200)
    records = [held("r0", images < 20), held("ra", images < 100), held("rb", images < 140), held("rc", images < 150)]
    text = table(a_layout(), ALL, records)
    assert text.splitlines()[2] == "**No pair of rows is settled at desk scale, for that takes three seeds of both.**"
    (line,) = [line for line in cells(text) if line[0] == "X, desk"]
    assert line == ["X, desk", "+1.00 (4 rows)", "–", "–", "–", "+1.00 (3 rows)", "–", "–"]
    assert text.count("bootstrap over the test images") == 1
    # ten of 200 images more, by hand: the count is binomial, of mean 10 and spread 3.1
    low, high = stats.binom.ppf([0.025, 0.975], 200, 10 / 200) / 2
    wanted = f"C less B, seed 0, +5.0 ({low:+.1f} to {high:+.1f}); B less A, seed 0, +20.0 ("
    assert f"These two networks, X, desk: {wanted}" in text
    assert "No interval" not in text


def test_rows_of_one_title_are_told_apart():
    """By their network, or by a fact that they do not share; rows of other titles need none."""
    opening = "These two networks, ImageNet top-1, desk: "
    (networks,) = [line for line in BOARDS["moco_linear"].remarks if line.startswith(opening)]
    assert "MoCo (network ResNeXt-50) less MoCo (network ResNet-50), seed 0, " in networks
    assert "NPID less CPC, seed 0, " in networks
    (others,) = [line for line in BOARDS["mocov2_simclr"].remarks if line.startswith(opening)]
    assert "MoCo v2 (epochs 200) less SimCLR (epochs 200, batch 8192), seed 0, " in others


def test_records_without_it_say_why():
    text = table(a_layout(), ALL, [*measured("ra", 50.0), *measured("rb", 70.0)])
    assert "No interval between networks with too few seeds in X, desk: their records do not hold what" in text


def test_rows_without_a_seed_in_common_say_so():
    right = np.arange(100) < 60
    records = [held("ra", right, seed=0), held("rb", ~right, seed=1)]
    text = table(a_layout(), ALL, records)
    assert "No interval between rows without a seed in common in X, desk." in text
    assert "do not hold what each test image contributes" not in text


def test_settled_pairs_are_counted_and_told_when_they_are_few():
    one, other = (49.0, 50.0, 51.0), (59.0, 60.5, 61.0)
    text = table(a_layout(), ALL, [*measured("ra", *one), *measured("rb", *other)])
    assert text.splitlines()[2] == "**Fewer than two pairs of rows are settled at desk scale (1).**"
    (line,) = [line for line in cells(text) if line[0] == "X, desk"]
    assert line[3] == "1 of 1"
    wanted = stats.ttest_rel(other, one).confidence_interval(0.95)
    assert f"interval over seeds, X, desk: B less A +10.2 ({wanted.low:+.1f} to {wanted.high:+.1f})." in text
    more = [*measured("ra", *one), *measured("rb", *other), *measured("rc", 30.0, 31.0, 32.5)]
    text = table(a_layout(), ALL, more)
    assert "ettled at desk" not in text
    (line,) = [line for line in cells(text) if line[0] == "X, desk"]
    assert line[3] == "3 of 3, 2 against the paper", "c is best in the paper, and worst here"
    (line,) = [line for line in cells(table(a_layout(), ALL, [*more, *measured("r0", 1.0)])) if line[0] == "X, desk"]
    assert line[2] == "-0.33 ± 0.00 (3), 3 rows", "the floor has one seed"
    assert line[3] == "3 of 6, 2 against the paper, 3 with too few seeds"


def test_the_supervised_row_can_be_left_out_alone():
    """It is the reference row whose records were given labels; a method with labels of its own stays."""
    labelled = {"settings": {"data": {"is": "Pool", "labels": True}}}
    rows = (Row("s", "S", recipe="rs", competes=False), *a_layout().rows)
    printed = [*ALL, *reported(s="70.0")]
    records = [*measured("r0", 20.0), *measured("ra", 10.0, **labelled), *measured("rb", 30.0)]
    text = table(a_layout(rows=rows), printed, [*records, *measured("rs", 40.0, **labelled)])
    (line,) = [line for line in cells(text) if line[0] == "X, desk"]
    assert [line[1], *line[4:6]] == ["+0.67 (4 rows)", "+0.33 (3 rows)", "+1.00 (2 rows)"]
    (line,) = [line for line in cells(table(a_layout(rows=rows), printed, records)) if line[0] == "X, desk"]
    assert line[4] == "–", "there is none"


def test_a_pair_that_is_settled_in_several_columns_is_one_pair():
    columns = tuple(
        Column(title, ("x", "best", "top1"), transfer="probe", metric="top1") for title in ("X", "the same again")
    )
    layout = a_layout(columns=columns, notes=(), delta=None)
    text = table(layout, ALL, [*measured("ra", 49.0, 50.0, 51.0), *measured("rb", 59.0, 60.5, 61.0)])
    assert "Fewer than two pairs of rows are settled at desk scale (1)." in text


# budgets


def trained(num_images: int = 2000, **settings: object) -> Record:
    data = {"is": "Pool", "batch_size": None}
    return a_record(settings={"batch_size": 32, "data": data, **settings}, origin={"num_images": num_images})


def test_budgets_in_words():
    epochs = {"is": "Epochs", "epochs": 40}
    assert budgets([trained(length=epochs)]) == "40 epochs, 79,360 images"  # 62 whole batches of 32, 40 times
    assert budgets([trained(length={"is": "Steps", "steps_total": 100})]) == "100 steps, 3,200 images"
    assert budgets([trained(length={"is": "Steps", "steps_total": 0})]) == "none"
    assert budgets([trained(length=epochs, after={"teacher": "t"})]) == "40 epochs, 79,360 images, after t"
    pools = {"a": {"is": "Pool", "batch_size": None}, "b": {"is": "Pool", "batch_size": 32}}
    assert budgets([trained(length=epochs, data=pools)]) == "40 epochs, 158,720 images"
    pools["b"]["batch_size"] = 64
    assert budgets([trained(length=epochs, data=pools)]) == "40 epochs", "nobody knows which is the first"
    both = [trained(length=epochs), trained(length={"is": "Epochs", "epochs": 20}), trained(length=epochs)]
    assert budgets(both) == "40 epochs, 79,360 images or 20 epochs, 39,680 images"
    assert budgets([a_record(), trained(), trained(length={"is": "Moons"})]) == ""


# every published table, by other means

BOARDS = current_boards()
MEASURED = [key for key, one in BOARDS.items() if any(head.kind == "measured" for head in one.heads)]


def of_column(one: Board, column: Column, scale: str) -> list[tuple[str, float, dict[int, float]]]:
    """(what the row is, reported, seed -> value) of every row with both, from the files themselves."""
    at = next(i for i, head in enumerate(one.heads) if head.column == column.title and head.kind == "reported")
    lines = [line for place, line in enumerate(one.lines) if place not in one.differences]
    found = []
    for row, line in zip(one.layout.rows, lines, strict=True):
        transfer, stage = row.scored_by(column)
        recipe = row.recipe_in(column.title)
        folder = LEADERBOARDS / "measured" / scale / recipe / transfer
        files = sorted(path for path in folder.glob("seed*.json") if ".time" not in path.name) if recipe else []
        by_seed = {record.seed: value_of(record, stage, column.metric) for record in map(read_record, files)}
        if by_seed and line[at].number is not None:
            framing = "supervised" if recipe.startswith("supervised") else "frames"
            found.append(("competes" if row.competes else framing, line[at].number, by_seed))
    return found


def value_of(record: Record, stage: str, metric: str) -> float:
    return record.detail["per_stage"][stage] if stage else record.metrics[metric]


def counted(rows: list[tuple[str, float, dict[int, float]]]) -> tuple[int, int, int]:
    """(pairs, settled, those against the paper), by scipy's own test."""
    settled, against = 0, 0
    pairs = list(itertools.combinations(rows, 2))
    for (_, printed, ours), (_, their_printed, theirs) in pairs:
        common = sorted(ours.keys() & theirs.keys())
        if len(common) >= 3:
            test = stats.ttest_rel([ours[seed] for seed in common], [theirs[seed] for seed in common])
            settled += test.pvalue < 0.05
            against += test.pvalue < 0.05 and test.statistic * (printed - their_printed) < 0
    return len(pairs), settled, against


def tau_b(pairs: list[tuple[float, float]]) -> float:
    """By counting."""
    signs = [(np.sign(a - b), np.sign(x - y)) for (a, x), (b, y) in itertools.combinations(pairs, 2)]
    return sum(a * x for a, x in signs) / math.sqrt(sum(a * a for a, _ in signs) * sum(x * x for _, x in signs))


@pytest.mark.parametrize("key", MEASURED)
def test_published_tables_say_what_their_records_say(key: str):
    one = BOARDS[key]
    by_title = {agreement.title: agreement for agreement in one.agreements}
    scales = sorted({agreement.scale for agreement in one.agreements})
    compared = 0
    for column, scale in itertools.product(one.layout.columns, scales):
        title = f"{column.title}, {scale}"  # longer where versions or data sets stand side by side
        if title in by_title:
            rows = of_column(one, column, scale)
            is_as_counted(by_title[title].every_row, rows)
            is_as_counted(by_title[title].without_supervised, [row for row in rows if row[0] != "supervised"])
            is_as_counted(by_title[title].methods_only, [row for row in rows if row[0] == "competes"])
            compared += 1
    assert compared == len(by_title)


def is_as_counted(found: RowOrder, rows: list[tuple[str, float, dict[int, float]]]) -> None:
    assert found.rows == len(rows)
    assert (found.pairs, len(found.settled), found.against) == counted(rows)
    if len(rows) < 2:
        return
    means = [(printed, float(np.mean(list(by_seed.values())))) for _, printed, by_seed in rows]
    tau = tau_b(means)
    assert found.tau is None if math.isnan(tau) else found.tau == pytest.approx(tau)  # undefined where all are equal
    common = set.intersection(*(set(by_seed) for _, _, by_seed in rows))
    if len(common) > 1 and found.seeded == len(rows):
        own = [tau_b([(printed, by_seed[seed]) for _, printed, by_seed in rows]) for seed in sorted(common)]
        assert found.by_seed == pytest.approx(tuple(own))


def opens_with_what_it_cannot_say(one: Board) -> bool:
    """It names each scale that settles fewer than two pairs, and no other."""
    by_scale: dict[str, set] = {agreement.scale: set() for agreement in one.agreements}
    for agreement in one.agreements:
        by_scale[agreement.scale] |= set(agreement.every_row.settled)
    return all((f" at {scale} scale" in one.opening) == (len(by_scale[scale]) < 2) for scale in by_scale)


def test_a_table_opens_with_what_it_cannot_say():
    for key in MEASURED:
        assert opens_with_what_it_cannot_say(BOARDS[key]), key
        written = (LEADERBOARDS / f"{key}.md").read_text(encoding="utf-8").splitlines()
        assert (written[4] == f"**{BOARDS[key].opening}**") == bool(BOARDS[key].opening)


def test_what_one_scale_settles_is_not_said_of_another():
    three = [*measured("ra", 49.0, 50.0, 51.0), *measured("rb", 59.0, 60.5, 61.0), *measured("rc", 30.0, 31.0, 32.5)]
    alone = [*measured("ra", 49.0, scale="photos"), *measured("rb", 59.0, scale="photos")]
    one = board(a_layout(), ALL, measured_scores([*three, *alone]), Legend())
    assert opens_with_what_it_cannot_say(one)
    assert one.opening == "No pair of rows is settled at photos scale, for that takes three seeds of both."


def test_every_measured_table_has_the_budgets_of_its_rows():
    for key in MEASURED:
        one = BOARDS[key]
        scales = {head.scale for head in one.heads if head.kind == "measured"}
        titles = [head.title for head in one.heads]
        for scale in scales:
            at = titles.index(f"Pretraining, {scale}")
            for place, line in enumerate(one.lines):
                shown = any(
                    cell.number is not None
                    for head, cell in zip(one.heads, line, strict=True)
                    if head.kind == "measured" and head.scale == scale
                )
                if place not in one.differences:
                    assert bool(line[at].text) == shown, (key, line[0].text)
