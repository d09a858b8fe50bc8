"""Whether a number is still good, and which numbers may be averaged: one answer each, wherever it is asked."""

from __future__ import annotations

import dataclasses
import random

import pytest
from test_check import CARD
from test_results import a_record

from benchmark.gate.targets import expect
from benchmark.records.currency import GONE, Now, reasons
from benchmark.records.record import Record
from benchmark.records.seeds import alike
from benchmark.tables.layout import Column, Row, TableLayout
from benchmark.tables.measured import measured_in, measured_scores

RECORD = a_record(origin={"after_recipes": {"teacher": "e" * 12}})
SAME = Now(
    recipe=RECORD.recipe_hash,
    protocol=RECORD.transfer_version,
    data=RECORD.transfer_data,
    backbone=RECORD.backbone_hash,
    engine=None,
    accepted=RECORD.hash,
)


def test_what_nobody_looked_at_decides_nothing():
    assert reasons(RECORD, Now()) == []
    assert reasons(RECORD, SAME) == []
    assert reasons(RECORD, Now(data=dict.fromkeys(RECORD.transfer_data))) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipe": "f" * 12}, f"its recipe was {RECORD.recipe_hash} and is ffffffffffff now"),
        ({"recipe": GONE}, "there is no recipe some at desk scale"),
        ({"before": {"teacher": "f" * 12}}, "the recipe of its teacher was eeeeeeeeeeee and is ffffffffffff now"),
        ({"before": {"teacher": GONE}}, "the recipe of its teacher was eeeeeeeeeeee and is gone now"),
        ({"protocol": 2}, "its protocol was v1 and is v2 now"),
        ({"protocol": GONE}, "there is no protocol linear_somewhere_someone"),
        ({"backbone": "f" * 12}, f"its backbone file was {RECORD.backbone_hash} and is ffffffffffff now"),
        ({"engine": "detectron2"}, "its engine was None, and detectron2 is asked for"),
        ({"accepted": GONE}, "it is not in expected.csv"),
        ({"accepted": "f" * 12}, f"edited or replaced: {RECORD.hash}, not ffffffffffff"),
        ({"data": {"imagenet/val": "b"}}, "imagenet/val was aaaaaaaaaaaa and is b now"),
        ({"data": {**RECORD.transfer_data, "a.txt": "c"}}, "a.txt was not there and is c now"),
        ({"data": {}}, "imagenet/val was aaaaaaaaaaaa and is not there now"),
        ({"data": "x.json: broken"}, "its data cannot be read now: x.json: broken"),
    ],
)
def test_each_change_is_a_reason(change: dict, said: str):
    assert reasons(RECORD, dataclasses.replace(SAME, **change)) == [said]


def test_every_field_is_asked_for():
    """A field that no change above touches could be forgotten in `reasons`."""
    marks = test_each_change_is_a_reason.pytestmark  # type: ignore[attr-defined]
    assert {name for change, _ in marks[0].args[1] for name in change} == {f.name for f in dataclasses.fields(Now)}


def test_commit_versions_and_device_make_no_record_stale():
    elsewhere = dataclasses.replace(RECORD, commit="e" * 40 + "+dirty", versions={}, device="another", threads=9)
    assert reasons(elsewhere, dataclasses.replace(SAME, accepted=None)) == []


COLUMN = Column("top1", ("t", "s", "m"), transfer=CARD.id, metric="top1")
LAYOUT = TableLayout("k", "", "", "", "", (Row("m", "M", recipe="some"),), (COLUMN,), (), None, (), {}, {})


def some_records(rng: random.Random) -> list[Record]:
    """A shelf on which settings, versions and data of one recipe lie mixed."""
    return [
        a_record(
            seed=seed,
            recipe_hash=rng.choice(["a" * 12, "b" * 12]),
            transfer_version=rng.choice([1, 2]),
            transfer_data={"imagenet/val": rng.choice(["x", "y"])},
            metrics={"top1": rng.uniform(0, 100)},
            detail={},
        )
        for seed in range(rng.randint(4, 12))
    ]


@pytest.mark.parametrize("draw", range(200))
def test_a_tables_mean_and_the_gates_target_are_of_the_same_records(draw: int):
    rng = random.Random(draw)
    records, hashes = some_records(rng), rng.choice([(), ("a" * 12,), ("b" * 12,)])
    card = dataclasses.replace(CARD, version=rng.choice([1, 2]))
    rng.shuffle(records)
    spread = [a_record(recipe="other", seed=seed, metrics={"top1": float(seed)}, detail={}) for seed in range(6)]
    (target,) = (line for line in expect([*records, *spread], {card.id: card}, hashes) if line.recipe == "some")
    measured, _ = measured_in(LAYOUT, measured_scores(records, hashes))
    averaged = {" ".join(f"{one.seed}@{one.hash}" for one in seeds.records): seeds for seeds in measured.values()}
    assert target.runs in averaged, "the gate's target is of records that no table averages"
    assert float(target.target) == pytest.approx(averaged[target.runs].mean, abs=5e-4)


def test_current_settings_go_first_then_the_current_protocol_then_many_seeds():
    old = [a_record(seed=seed) for seed in range(5)]
    new = [a_record(seed=seed, recipe_hash="f" * 12) for seed in (7, 5)]
    newer = [a_record(seed=9, recipe_hash="f" * 12, transfer_version=2)]
    every = [*old, *new, *newer]

    def kept(hashes: tuple[str, ...], version: int) -> list[int]:
        return [record.seed for record in alike(every, hashes, {CARD.id: version})[0]]

    assert kept((), 0) == [0, 1, 2, 3, 4]
    assert kept(("f" * 12,), 0) == [5, 7]
    assert kept(("f" * 12,), 2) == [9]
    assert kept((), 2) == [9]
    assert len(alike(every, (), {})[1]) == 3
