"""Records: the same bytes for the same run, read strictly, current by what they are and not by when."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.core.errors import UserError
from benchmark.core.provenance import commit, versions
from benchmark.records.folders import published_seconds, read_published, read_runs, write_clock, write_record
from benchmark.records.publish import publish_run
from benchmark.records.record import Record, read_record


def a_record(**changes: Any) -> Record:
    record = Record(
        recipe="some",
        recipe_hash="0123456789ab",
        settings={"is": "Recipe", "batch_size": 64},
        scale="desk",
        seed=0,
        transfer="linear_somewhere_someone",
        transfer_version=1,
        metrics={"top1": 63.6, "top5": 80.0},
        detail={"per_stage": {"res4": 60.1, "res5": 63.6}, "note": "Größe"},
        transfer_data={"imagenet/val": "aaaaaaaaaaaa"},
        origin={"data": "bbbbbbbbbbbb", "world_size": 1, "made_by": {"commit": "e" * 40}},
        backbone_hash="cccccccccccc",
        commit="f" * 40,
        versions={"python": "3.11"},
        device="cpu",
        threads=2,
    )
    return dataclasses.replace(record, **changes)


def test_written_and_read_back(tmp_path: Path):
    record = a_record()
    path = write_record(record, tmp_path, seconds=1.23)
    assert path == tmp_path / "desk/some/seed0/linear_somewhere_someone.json"
    assert read_record(path) == record
    assert list(read_runs(tmp_path)) == [record]
    first = path.read_bytes()
    write_record(record, tmp_path, seconds=99)
    assert path.read_bytes() == first, "seconds and date are no part of a record"


CONTENT = json.loads(a_record().to_bytes())


@given(
    key=st.sampled_from(sorted(CONTENT)),
    value=st.one_of(st.none(), st.booleans(), st.lists(st.integers()), st.just({"top1": "high"}), st.just({"a": None})),
)
def test_wrong_types_are_refused(tmp_path_factory: pytest.TempPathFactory, key: str, value: Any):
    if key in ("settings", "detail", "origin") and isinstance(value, dict):
        return  # free-form
    if key in ("versions", "transfer_data") and value == {"top1": "high"}:
        return
    path = tmp_path_factory.mktemp("record") / "r.json"
    path.write_text(json.dumps({**CONTENT, key: value}))
    with pytest.raises(UserError, match=str(path)):
        read_record(path)


@pytest.mark.parametrize(
    "bad", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 400, "true", '"63"', "null"]
)
def test_numbers_that_are_none(tmp_path: Path, bad: str):
    path = tmp_path / "r.json"
    path.write_text(a_record().to_bytes().decode().replace("80.0", bad))
    with pytest.raises(UserError, match=str(path)):
        read_record(path)


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode) | st.just(b"[" * 5000))
def test_noise_is_refused(tmp_path_factory: pytest.TempPathFactory, noise: bytes):
    path = tmp_path_factory.mktemp("record") / "r.json"
    path.write_bytes(noise)
    with pytest.raises(UserError, match="not a record"):
        read_record(path)


@pytest.mark.parametrize("key", sorted(CONTENT))
def test_missing_and_unknown_keys_are_named(tmp_path: Path, key: str):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({k: v for k, v in CONTENT.items() if k != key}))
    with pytest.raises(UserError, match=f"{path}: .*{'format' if key == 'format' else key}"):
        read_record(path)
    path.write_text(json.dumps({**CONTENT, f"{key}_x": 1}))
    with pytest.raises(UserError, match=f"{key}_x' is unknown"):
        read_record(path)


def test_nan_is_never_written():
    with pytest.raises(ValueError, match="JSON"):
        a_record(metrics={"top1": float("nan")}).to_bytes()


def test_a_record_in_anothers_place_is_an_error(tmp_path: Path):
    path = write_record(a_record(), tmp_path, 1)
    (tmp_path / "desk/other/seed0").mkdir(parents=True)
    path.rename(tmp_path / "desk/other/seed0" / path.name)
    with pytest.raises(UserError, match=r"belongs at .*desk/some/seed0"):
        list(read_runs(tmp_path))


def test_publishing(tmp_path: Path):
    runs, measured = tmp_path / "runs", tmp_path / "measured"
    path = write_record(a_record(), runs, 1)
    assert publish_run(path.parent, measured) == [measured / "desk/some/linear_somewhere_someone/seed0.json"]
    assert list(read_published(measured)) == [a_record()]
    clock = measured / "desk/some/linear_somewhere_someone/seed0.time.json"
    assert json.loads(clock.read_bytes())["seconds"] == 1
    assert published_seconds(measured, "desk") == {("some", "linear_somewhere_someone"): 1}
    write_clock(path.parent / "pretraining.time.json", 60)
    assert publish_run(path.parent, measured) == [measured / "desk/some/linear_somewhere_someone/seed0.json"]
    assert published_seconds(measured, "desk")["some", "pretraining"] == 60
    assert list(read_published(measured)) == [a_record()]
    write_record(a_record(seed=1, commit="e+dirty"), runs, 1)
    with pytest.raises(UserError, match="in no commit"):
        publish_run(runs / "desk/some/seed1", measured)
    for made_by in ({"commit": "e+dirty"}, {"commit": ""}, {}):  # the pretraining's code counts as much
        pretrained = write_record(a_record(seed=2, origin={"made_by": made_by}), runs, 1)
        with pytest.raises(UserError, match="in no commit"):
            publish_run(pretrained.parent, measured)
    clean = {"commit": "e" * 40}
    begun = {"origin": {"made_by": clean | {"stretches": [{"first_step": 0, "commit": "e+dirty"}, clean]}}}
    kept = {"detail": {"kept_by": [{"commit": ""}, clean]}}
    for part in (begun, kept):  # and that of its first half, where it went on after a change
        path = write_record(a_record(seed=3, **part), runs, 1)
        with pytest.raises(UserError, match="in no commit"):
            publish_run(path.parent, measured)
    assert publish_run(runs / "desk/some/seed1", measured, allow_dirty=True)
    with pytest.raises(UserError, match="no records"):
        publish_run(runs / "desk/none/seed0", measured)


@pytest.mark.parametrize("where", ["detail", "origin"])
def test_what_came_from_a_part_of_the_data_is_not_published(where: str, tmp_path: Path):
    part = {"incomplete": {"imagenet/train": "126,689 of 1,281,167 images"}, "made_by": {"commit": "c"}}
    path = write_record(a_record(**{where: part}), tmp_path / "runs", 1)
    with pytest.raises(UserError, match="linear_somewhere_someone came from data that was not complete"):
        publish_run(path.parent, tmp_path / "measured", allow_dirty=True)
    assert not (tmp_path / "measured").exists()


def test_provenance_of_this_very_checkout():
    assert len(commit().removesuffix("+dirty")) in (0, 40)
    assert versions()["torch"] != "not installed"
