"""The gate: fires on what moved, stays silent on other seeds, and names every record that is not what it should be."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import TRAINED, drawn_images, on_cpu
from test_results import a_record

from benchmark.backbones.weights import read_facts
from benchmark.core.errors import UserError
from benchmark.core.files import file_hash, write_whole
from benchmark.data.image_set import ImageSet
from benchmark.engine.train import pretrain
from benchmark.gate.check import accepted, all_findings, findings_text, flagged
from benchmark.gate.staleness import not_good, now_of
from benchmark.gate.targets import (
    PRETRAINING,
    compare,
    expect,
    expected_csv,
    read_expected,
    with_pretraining,
    without_target,
)
from benchmark.recipe.contract import Recipe, recipe_hash, with_change
from benchmark.recipe.scales import at_scale
from benchmark.records.folders import read_published
from benchmark.records.metric import PERCENT, Metric
from benchmark.records.record import Record
from benchmark.records.soundness import faults
from benchmark.tables.ledger import LEADERBOARDS
from benchmark.transfers import find_transfers
from benchmark.transfers.contract import ProtocolCard


def records(recipe: str, *values: float, first: int = 0, **changes: Any) -> list[Record]:
    return [
        a_record(recipe=recipe, seed=seed, metrics={"top1": value}, **{"detail": {}, **changes})
        for seed, value in enumerate(values, first)
    ]


CARD = ProtocolCard("linear_somewhere_someone", 1, "", "", {"top1": PERCENT}, (), "", "")
SPREAD = [
    *records("a", 60.0, 61.0, 62.0),
    *records("b", 70.2, 71.0, 69.6),
    *records("c", 20.5, 20.0, 21.9),
]
TARGETS = expect(SPREAD, {})


def kinds(found: list[Record]) -> list[str]:
    return [f"{one.kind}: {one.text}" for one in compare([line for line in TARGETS if line.recipe == "a"], found)]


def test_targets_are_means_and_say_what_they_came_from():
    line = TARGETS[0]
    assert (line.recipe, line.target, line.direction) == ("a", "61.000", "higher")
    assert line.hashes == {record.published_path: record.hash for record in SPREAD[:3]}
    # t(0.9995, 6) = 5.9588; pooled standard deviation of 6 degrees of freedom; one more run beside a mean of three
    pooled = ((2.0 + 0.9867 + 1.94) / 6) ** 0.5
    assert float(line.tolerance) == pytest.approx(5.9588 * pooled * (4 / 3) ** 0.5, rel=1e-3)


def test_a_planted_regression_is_told_with_its_size_and_other_seeds_are_not():
    assert kinds(records("a", 60.3, 61.9, 62.4, 59.5, 60.8, first=3)) == []
    moved = kinds(records("a", 54.0, first=3))
    assert len(moved) == 1
    assert moved[0].startswith(
        "moved: desk a linear_somewhere_someone top1: 61.0 ± 6.2 expected, 54.0 now (seeds 3): -7.0, worse"
    )
    assert kinds(records("a", 70.0, first=3))[0].endswith("+9.0, better")


def test_a_pretraining_run_that_was_made_twice_counts_once():
    origin = {"losses": {"loss/main": 2.5}}
    again = [a_record(backbone_hash=one, origin=origin, metrics={"top1": 60.0}, detail={}) for one in "ab"]
    assert [record.transfer for record in with_pretraining(again)].count(PRETRAINING) == 1
    other = a_record(backbone_hash="c", origin={"losses": {"loss/main": 2.6}}, metrics={"top1": 60.0}, detail={})
    assert [record.transfer for record in with_pretraining([*again, other])].count(PRETRAINING) == 2


def test_what_no_table_averages_the_gate_does_not_average():
    now, before = records("a", 50.0, 51.0, 49.0), records("a", 10.0, 10.0, first=3, recipe_hash="e" * 12)
    targets = expect([*now, *before, *records("b", 20.0, 21.0)], {}, [now[0].recipe_hash])
    line = next(one for one in targets if one.recipe == "a")
    assert float(line.target) == 50.0
    told = [(one.kind, one.fails) for one in compare([line], [*now, *before], [now[0].recipe_hash])]
    assert told == [("settings", False)] * 2
    assert [one.kind for one in compare([line], [*now, *before], ["e" * 12])].count("moved") == 1


def test_where_lower_is_better_a_rise_is_worse():
    lower = dataclasses.replace(CARD, metrics={"top1": Metric("s", (0, math.inf), higher=False)})
    (line, *_) = expect(SPREAD, {CARD.id: lower})
    assert next(compare([line], records("a", 70.0))).text.endswith("+9.0, worse")


def test_false_alarms_are_as_rare_as_promised():
    """One number in a thousand: 4,000 draws of nine recipes with three seeds, and of one more run each."""
    rng, alarms = random.Random(0), 0
    blank = SPREAD[0]
    for _ in range(400):
        some = [
            dataclasses.replace(blank, recipe=f"r{recipe}", seed=seed, metrics={"top1": rng.gauss(50, 2)})
            for recipe in range(9)
            for seed in range(3)
        ]
        for line in expect(some, {}):
            alarms += abs(rng.gauss(50, 2) - float(line.target)) > float(line.tolerance)
    assert 0 < alarms + 1 <= 12  # 3.6 expected of 3,600


def test_one_seed_alone_tells_no_spread_and_leaves_other_scales_their_targets():
    alone = records("a", 60.0, scale="photos")
    lines = expect([*SPREAD, *alone], {})
    assert [line for line in lines if line.scale == "desk"] == TARGETS
    (line,) = (line for line in lines if line.scale == "photos")
    assert (line.target, line.tolerance, line.hashes) == ("", "", {alone[0].published_path: alone[0].hash})
    assert list(compare([line], records("a", 99.0, scale="photos"))) == []
    (said,) = without_target(lines)
    assert said.startswith("photos scale: its scores get no target: no recipe has two seeds that differ")


def test_what_no_seed_changes_tells_nothing_of_the_spread():
    """Descriptors have no weights, so their nearest neighbours are the same whatever the seed."""
    random_init, one = records("random_init", 10.0, 11.0, 12.0), records("pirl", 40.0)
    constant = [*records("descriptors", 20.0, 20.0, 20.0), *records("others", 30.0, 30.0, 30.0)]
    tolerances = {line.recipe: line.tolerance for line in expect([*random_init, *one], {})}
    lines = expect([*constant, *random_init, *one], {})
    assert {line.recipe: line.tolerance for line in lines if line.recipe in tolerances} == tolerances
    assert float(tolerances["pirl"]) == pytest.approx(31.599 * 1.0 * 2**0.5, rel=1e-3)  # t(0.9995, 2), spread 1
    assert without_target(lines) == []
    assert {line.target for line in expect([*constant, *one], {})} == {""}, "no spread at all"


@pytest.mark.parametrize("now", [1, 2])
def test_targets_of_a_half_republished_set_are_of_the_protocol_as_it_is_now(now: int):
    """Whichever has more seeds or comes first."""
    old, new = records("a", 60.0, 61.0, 62.0), records("a", 70.0, 71.0, first=3, transfer_version=2)
    elsewhere = records("a", 80.0, first=9, transfer_version=2, transfer_data={"imagenet/val": "b" * 12})
    others = records("a", 90.0, 92.0, first=10, transfer_version=2, recipe_hash="f" * 12)
    for some in ([*old, *new, *elsewhere, *others], [*others, *elsewhere, *new, *old]):
        (line,) = expect(some, {CARD.id: dataclasses.replace(CARD, version=now)})
        assert (line.transfer_version, line.target) == {1: ("1", "61.000"), 2: ("2", "70.500")}[now]
        (line,) = expect(some, {CARD.id: dataclasses.replace(CARD, version=now)}, {"f" * 12})
        assert (line.recipe_hash, line.target) == ("f" * 12, "91.000")  # settings that would be run now go first


def test_another_protocol_or_other_data_cannot_be_compared():
    assert "incomparable" in kinds(records("a", 61.0, transfer_version=2))[0]
    assert "incomparable" in kinds(records("a", 61.0, transfer_data={"imagenet/val": "b" * 12}))[0]
    assert kinds([])[0].startswith("missing")


def test_other_settings_are_told_and_do_not_fail():
    (found,) = compare(TARGETS[:1], records("a", 61.0, recipe_hash="f" * 12))
    assert (found.kind, found.fails) == ("settings", False)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("61.000", "nan", "line 2: 'nan' is not a number"),
        ("higher", "up", "line 2: direction is 'up'"),
        ("0@", "zero@", "line 2: runs are"),
        ("61.000,", ",", "line 2: '' is not a number"),
        ("desk,b", "desk,a", "line 3: a second target for desk a"),
        ("scale,", "size,", "header must be scale,"),
    ],
)
def test_faults_in_expected_are_named(tmp_path: Path, old: str, new: str, said: str):
    path = tmp_path / "expected.csv"
    path.write_text(expected_csv(TARGETS).replace(old, new, 1))
    with pytest.raises(UserError, match=f"expected.csv.*{said}"):
        read_expected(path)


def test_expected_is_read_as_written(tmp_path: Path):
    path = tmp_path / "expected.csv"
    lines = expect([*SPREAD, *records("a", 60.0, scale="photos")], {})
    path.write_text(expected_csv(lines))
    assert read_expected(path) == lines
    with pytest.raises(UserError, match="--accept"):
        read_expected(tmp_path / "none.csv")


def test_the_committed_targets_are_of_the_committed_records():
    cards = {name: transfer.card for name, transfer in find_transfers().items()}
    assert (LEADERBOARDS / "expected.csv").read_text() == expected_csv(accepted(LEADERBOARDS, cards))
    lines = read_expected(LEADERBOARDS / "expected.csv")
    assert all(float(line.tolerance) > 0 for line in lines if line.target)


def with_loss(recipe: str, *losses: float, transfer: str = "one") -> list[Record]:
    return [
        a_record(
            recipe=recipe,
            seed=seed,
            transfer=transfer,
            origin={"losses": {"loss/main": loss}, "data": "d/train", "data_fingerprint": "f"},
            backbone_hash=f"{seed:012x}",
        )
        for seed, loss in enumerate(losses)
    ]


def test_losses_count_once_for_each_pretraining_and_old_records_have_none():
    records = [*with_loss("a", 0.02, 0.03), *with_loss("a", 0.02, 0.03, transfer="two"), *SPREAD]
    added = with_pretraining(records)[len(records) :]
    assert [(one.recipe, one.seed, one.metrics) for one in added] == [
        ("a", 0, {"loss/main": 0.02}),
        ("a", 1, {"loss/main": 0.03}),
    ]


def test_a_loss_is_judged_by_the_spread_of_its_own_recipe():
    several = [*with_loss("a", 0.02, 0.03, 0.04), *with_loss("b", 700.0, 800.0, 900.0), *with_loss("c", 1.0)]
    lines = [line for line in expect(with_pretraining(several), {}) if line.transfer == PRETRAINING]
    assert [(line.recipe, line.metric, line.direction, line.target) for line in lines] == [
        ("a", "loss/main", "lower", "0.030000"),
        ("b", "loss/main", "lower", "800.000000"),
    ]  # one seed alone, of c, tells no spread
    assert float(lines[0].tolerance) == pytest.approx(31.599 * 0.01 * (4 / 3) ** 0.5, rel=1e-3)  # t(0.9995, 2)
    assert lines[0].runs == "0@000000000000 1@000000000001 2@000000000002"
    assert lines[0].hashes == {}  # their records are held to the lines of their scores
    (found,) = compare(lines[:1], with_pretraining(with_loss("a", 0.5)))
    assert found.text == (
        "desk a pretraining loss/main: 0.0300 ± 0.3649 expected, 0.5000 now (seeds 0): +0.4700, worse"
    )
    scores = [line for line in expect(with_pretraining(several), {}) if line.transfer != PRETRAINING]
    assert {line.target for line in scores} == {""}  # all scores are the same: no loss is pooled with them


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return drawn_images(tmp_path_factory.mktemp("images"))


def test_a_wrong_temperature_is_caught_at_smoke_scale_and_other_seeds_are_not(images: ImageSet, tmp_path: Path):
    """In seconds, by its loss: what it scores after four steps is near chance either way."""

    def trained(recipe: Recipe, seed: int) -> Record:
        file = pretrain(
            dataclasses.replace(recipe, seed=seed), "pirl", images, tmp_path / f"{seed}", on_cpu(checkpoint_seconds=60)
        )
        origin = read_facts(file)["origin"]
        return a_record(recipe="pirl", scale="smoke", seed=seed, origin=origin, backbone_hash=file_hash(file))

    right = TRAINED["pirl"]
    expected = expect(with_pretraining([trained(right, seed) for seed in range(5)]), {})
    others = [trained(right, seed) for seed in range(5, 10)]
    for some in (others, *([one] for one in others)):
        assert list(compare(expected, with_pretraining(some))) == []
    wrong = trained(with_change(right, "method.tau", 0.7), 10)
    (found,) = compare(expected, with_pretraining([wrong]))
    assert (found.kind, found.fails) == ("moved", True)
    assert found.text.startswith("smoke pirl pretraining loss/main: ")


def test_the_committed_targets_at_smoke_scale_are_of_ten_seeds_and_more():
    smoke = [line for line in read_expected(LEADERBOARDS / "expected.csv") if line.scale == "smoke"]
    assert {line.recipe for line in smoke if line.transfer == PRETRAINING} == {"npid_pp", "pirl", "supervised"}
    assert all(len(line.runs.split()) == (15 if line.recipe == "pirl" else 10) for line in smoke)
    records = [one for one in read_published(LEADERBOARDS / "measured") if one.scale == "smoke"]
    assert not not_good(records, now_of)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A copy of the leaderboards with records and targets of its own."""
    for name in ("names.csv", "sources.csv", "tables.toml", "discrepancies.toml"):
        shutil.copy(LEADERBOARDS / name, tmp_path)
    shutil.copytree(LEADERBOARDS / "reported", tmp_path / "reported")
    for record in SPREAD:
        path = tmp_path / "measured" / record.published_path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.to_bytes())
    (tmp_path / "expected.csv").write_text(expected_csv(TARGETS))
    return tmp_path


def failing(shelf: Path) -> list[str]:
    found = all_findings(shelf / "runs", None, {CARD.id: CARD}, leaderboards=shelf)
    return [f"{one.kind}: {one.text}" for one in found if one.fails]


def test_sound_records_pass(shelf: Path):
    assert failing(shelf) == []


FIRST = SPREAD[0].published_path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"top1": 60.0', '"top1": 60.4', "not accepted: {path}: edited or replaced"),
        ('"top1": 60.0', '"top1": 0.6', "not accepted: {path}: edited or replaced"),
        ('"top1": 60.0', '"top1": NaN', "bad record: {root}/{path}: not a record"),
        ('"top1": 60.0', '"top1": 60.0, "top1": 61.0', "bad record: {root}/{path}: .*a key is given twice"),
        ('"top1": 60.0', '"top1": 160.0', "bad record: {root}/{path}: top1 is 160, and it can only be 0 to 100"),
        ('"top1": 60.0', '"map": 60.0', "bad record: {root}/{path}: has the metrics"),
        ('"seed": 0', '"seed": 1', "bad record: {root}/{path}: holds a record that belongs at"),
        ('"seed": 0', '"seed": 0, "luck": 7', "bad record: {root}/{path}: 'luck' is unknown"),
        ('"seed": 0', '"seed": 0.0', "bad record: {root}/{path}: 'seed' is not int"),
        ("{", "", "bad record: {root}/{path}: not a record"),
    ],
)
def test_a_record_changed_by_hand_is_named(shelf: Path, old: str, new: str, said: str):
    path = shelf / "measured" / FIRST
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    text = said.format(path=re.escape(FIRST.as_posix()), root=re.escape(str(shelf / "measured")))
    assert any(re.match(text, one) for one in failing(shelf)), failing(shelf)


def test_a_record_without_a_target_is_accepted_and_may_not_be_edited(shelf: Path):
    (alone,) = records("a", 60.0, scale="photos")
    write_whole(shelf / "measured" / alone.published_path, alone.to_bytes())
    (shelf / "expected.csv").write_text(expected_csv(accepted(shelf, {CARD.id: CARD})))
    assert failing(shelf) == []
    write_whole(shelf / "measured" / alone.published_path, dataclasses.replace(alone, threads=99).to_bytes())
    (only,) = failing(shelf)
    assert only.startswith(f"not accepted: {alone.published_path.as_posix()}: edited or replaced")


def test_a_missing_seed_an_unknown_record_and_a_duplicate_are_named(shelf: Path):
    path = shelf / "measured" / FIRST
    shutil.copy(path, path.with_name("copy.json"))
    assert any(
        one.startswith("bad record") and "copy.json: holds a record that belongs at" in one for one in failing(shelf)
    )
    path.with_name("copy.json").rename(shelf / "measured/loose.json")
    assert any("loose.json: holds a record that belongs at" in one for one in failing(shelf))
    (shelf / "measured/loose.json").unlink()
    path.rename(shelf / "away.json")
    assert failing(shelf) == [f"not accepted: {FIRST.as_posix()}: missing, though expected.csv was written from it"]
    other = a_record(recipe="a", seed=9, metrics={"top1": 60.0}, detail={})
    (shelf / "measured" / other.published_path).write_bytes(other.to_bytes())
    assert any("seed9.json: it is not in expected.csv" in one for one in failing(shelf))


def test_fresh_losses_are_judged_instead_of_published_ones(shelf: Path):
    for record in with_loss("a", 2.0, 2.1, 2.2):
        published = dataclasses.replace(record, transfer=CARD.id, metrics={"top1": 61.0}, detail={})
        (shelf / "measured" / published.published_path).write_bytes(published.to_bytes())
    (shelf / "expected.csv").write_text(expected_csv(accepted(shelf, {CARD.id: CARD})))
    assert failing(shelf) == []
    (fresh,) = with_loss("a", 9.0)
    write_whole(shelf / "runs" / fresh.path, fresh.to_bytes())
    (only,) = failing(shelf)
    assert only.startswith("moved: desk a pretraining loss/main: 2.1000 ± ")
    assert only.endswith(" expected, 9.0000 now (seeds 0): +6.9000, worse")


def test_fresh_runs_are_judged_instead_of_published_records(shelf: Path):
    (record,) = records("a", 40.0, first=7)
    write_whole(shelf / "runs" / record.path, record.to_bytes())
    (only,) = failing(shelf)
    assert only.startswith("moved: desk a ")
    assert only.endswith("40.0 now (seeds 7): -21.0, worse")


def test_tables_mark_a_record_that_was_edited(shelf: Path):
    edited = dataclasses.replace(SPREAD[0], metrics={"top1": 99.0})
    flags = flagged([edited, *SPREAD[1:]], shelf)
    assert flags[FIRST].startswith("edited or replaced")
    assert "no recipe a at desk scale" in flags[SPREAD[1].published_path]
    assert "edited" not in flags[SPREAD[1].published_path]


def test_tables_mark_the_seeds_beside_one_that_is_gone(shelf: Path):
    flags = flagged(SPREAD[1:], shelf)
    for record in SPREAD[1:3]:
        assert flags[record.published_path].endswith("; seed0.json is missing, though expected.csv was written from it")
    assert all("seed0.json" not in flags[record.published_path] for record in SPREAD[3:])


def test_what_cannot_be_is_no_target(shelf: Path):
    bad = dataclasses.replace(SPREAD[0], metrics={"top1": 160.0})
    (shelf / "measured" / FIRST).write_bytes(bad.to_bytes())
    with pytest.raises(UserError, match=f"{FIRST.as_posix()}: top1 is 160, and it can only be 0 to 100"):
        accepted(shelf, {CARD.id: CARD})


def test_a_fresh_run_that_cannot_be_is_named_where_it_lies(shelf: Path):
    (fresh,) = records("a", 160.0, first=7)
    write_whole(shelf / "runs" / fresh.path, fresh.to_bytes())
    assert f"bad record: {shelf / 'runs' / fresh.path}: top1 is 160, and it can only be 0 to 100" in failing(shelf)


def test_numbers_must_hold_together():
    detail = {"per_stage": {"res4": 60.1, "res5": 63.6}, "selected": {"stage": "res5"}}
    assert list(faults(a_record(metrics={"top1": 63.6}, detail=detail), CARD.metrics)) == []
    (said,) = faults(a_record(metrics={"top1": 65.6}, detail=detail), CARD.metrics)
    assert said == "top1 is 65.6, but the selected stage res5 has 63.6"
    (said,) = faults(a_record(metrics={"top1": 63.6}, origin={"losses": {"loss/main": "2"}}), CARD.metrics)
    assert said == "the losses in its origin are not numbers by name"
    assert any("a fraction" in said for said in faults(a_record(metrics={"top1": 0.636}, detail=detail), CARD.metrics))


def test_paper_scale_is_compared_with_the_papers(shelf: Path):
    def at_paper(value: float) -> list[str]:
        record = a_record(recipe="pirl", scale="paper", transfer="voc07_svm_goyal", metrics={"map": value}, detail={})
        write_whole(shelf / "runs" / record.path, record.to_bytes())
        return failing(shelf)

    assert at_paper(81.5) == []
    assert at_paper(79.0) == [
        "moved: pirl_linear, PIRL, VOC07 mAP: 79.0 (1) measured at paper scale, -2.1: below the reported number"
    ]


def test_the_report_counts():
    text = findings_text(all_findings(Path("none"), "smoke", {}))
    assert text.endswith("findings fail the gate, 0 do not.")


def test_a_changed_recipe_makes_its_published_records_stale():
    from benchmark.recipe.catalogue import find_recipes

    name, recipe = next(iter(find_recipes().items()))
    card = find_transfers()["voc07_svm_goyal"].card
    now = a_record(
        recipe=name,
        recipe_hash=recipe_hash(at_scale(recipe, "desk")),
        transfer=card.id,
        transfer_version=card.version,
    )
    other = dataclasses.replace(now, seed=1, recipe_hash="f" * 12)
    assert not_good([now, other], now_of).keys() == {other.published_path}


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_whatever_is_done_to_a_record_is_named_by_file(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    """Any key set to anything: refused, not accepted, or the record as it was."""
    shelf = tmp_path_factory.mktemp("shelf")
    content = json.loads(SPREAD[0].to_bytes())
    key = data.draw(st.sampled_from([*sorted(content), "extra"]))
    if data.draw(st.booleans()) and isinstance(content.get(key), dict):
        content[key][data.draw(st.sampled_from([*content[key], "more"]))] = data.draw(JUNK)
    elif data.draw(st.booleans()):
        content.pop(key, None)
    else:
        content[key] = data.draw(JUNK)
    path = shelf / "measured" / FIRST
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    (shelf / "expected.csv").write_text(expected_csv(expect(SPREAD[:3], {})[:1]))
    for record in SPREAD[1:3]:
        (shelf / "measured" / record.published_path).write_bytes(record.to_bytes())
    named = [
        one.text
        for one in all_findings(shelf / "runs", None, {}, leaderboards=shelf)
        if one.fails and FIRST.as_posix() in one.text
    ]
    was = json.loads(SPREAD[0].to_bytes())
    assert bool(named) == (json.dumps(content, sort_keys=True) != json.dumps(was, sort_keys=True))  # 1 is not True
