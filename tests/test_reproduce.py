"""From nothing to the tables at smoke scale: what is current is skipped, what fails is told and loses nothing else."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from annotated import change_mask, change_mat, move_box
from small_runs import on_cpu

from benchmark import cli
from benchmark.core.errors import UserError
from benchmark.core.files import write_whole
from benchmark.data.masks import train_aug
from benchmark.records.record import read_record
from benchmark.runs import current, scoring
from benchmark.runs.reproduce import RowWork, bring_up_to_date
from benchmark.runs.request import selected
from benchmark.runs.run import Run
from benchmark.tables.layout import read_layouts
from benchmark.tables.markdown import markdown
from benchmark.tables.pages import boards, in_no_table
from benchmark.toyland import build_world
from benchmark.transfers import find_transfers
from benchmark.transfers.contract import Context, Scores, Transfer

COMMAND = ["reproduce", "--scale", "smoke", "--workers", "0", "--device", "cpu", "--jobs", "1"]


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An empty folder, and transfers that answer at once; the list of ids they were asked for."""
    asked: list[str] = []

    def answer(transfer: Transfer, _: object, context: Context) -> Scores:
        asked.append(transfer.card.id)
        write_whole(context.workspace / "features", b"")
        stages = ("conv1", "res2", "res3", "res4", "res5", "conv2", "conv3", "conv4", "conv5", "conv", "fc", "y")
        return Scores(dict.fromkeys(transfer.card.metrics, 50.0), {"per_stage": dict.fromkeys(stages, 10.0)})

    for transfer in find_transfers().values():
        monkeypatch.setattr(type(transfer), "run", answer)
    monkeypatch.chdir(tmp_path)
    current.split_fingerprint.cache_clear()
    current.annotation_fingerprints.cache_clear()
    current._pool_fingerprint.cache_clear()
    return asked


def test_reference_rows_come_along_and_the_second_time_nothing_runs(
    quick: list[str], capsys: pytest.CaptureFixture[str]
):
    assert cli.run([*COMMAND, "supervised", "--seeds", "0", "0"]) == 0  # the same row twice is one row
    shown = capsys.readouterr().out
    assert {path.name for path in Path("runs/smoke").iterdir() if path.is_dir()} == {
        "random_init",
        "descriptors",
        "supervised",
        "tables",
    }
    assert "[supervised seed 0 1/10] pretrain" in shown
    assert "[random_init seed 0 10/10] transfer to" in shown
    assert "transfer to own_classifier_imagenet: left out" in shown  # random_init has none
    assert "3 of 3 rows are done: " in shown
    assert "All tables: runs/smoke/tables.md" in shown
    assert Path("runs/smoke/tables/pirl_linear.txt").read_text() in shown
    assert "Whole table: runs/smoke/tables/pirl_linear.md\n" in shown
    assert "50.0 (1)" in Path("runs/smoke/tables/pirl_linear.md").read_text()
    after = shown.partition(" s  in all\n")[2]
    assert re.search(r"\nSupervised +75\.9 +50\.0 ", after)
    assert max(map(len, after.splitlines())) <= 100
    assert re.search(r"\[\w+ seed 0 \d+/10\] transfer to \w+ \(\d+:\d\d so far, about \d+ s left in all\)", shown)
    assert not [*Path("runs/smoke").glob(".time-left*")]
    tables, ran = Path("runs/smoke/tables.md").read_text(), len(quick)

    assert cli.run([*COMMAND, "supervised"]) == 0
    answered = capsys.readouterr().out
    assert "Nothing has changed" in answered
    assert answered.partition("Nothing has changed")[0] == after.lstrip()
    os.utime("runs/smoke/tables.md", (0, 0))  # a change that changes no result: the records' own rules decide
    assert cli.run([*COMMAND, "supervised"]) == 0
    assert "transfer to voc07_svm_goyal: current" in capsys.readouterr().out
    assert len(quick) == ran
    assert Path("runs/smoke/tables.md").read_text() == tables


def test_a_changed_data_set_makes_records_stale(quick: list[str], capsys: pytest.CaptureFixture[str]):
    assert cli.run([*COMMAND, "supervised"]) == 0
    ran = len(quick)
    entry = next(Path("data/smoke").rglob("val2018.json"))
    entry.write_text(entry.read_text() + " ")
    image = next(path for path in sorted(Path("data/smoke").rglob("*.jpg")) if "VOC2007" in str(path))
    image.write_bytes(image.read_bytes() + b"\0")
    current.split_fingerprint.cache_clear()
    assert cli.run([*COMMAND, "supervised"]) == 0
    on_voc07 = {"voc07_svm_goyal", "voc07_det_c4_pirl"}
    assert set(quick[ran:]) == on_voc07, "only the data set whose images changed is scored again"
    assert Counter(quick[ran:]) == {"voc07_svm_goyal": 3, "voc07_det_c4_pirl": 2}  # no detector has descriptors


def test_a_changed_mask_or_box_is_scored_again_and_nothing_else_is(quick: list[str]):
    names = ["voc12_seg_fcn_moco", "voc07_det_c4_pirl", "voc07_svm_goyal"]
    build_world(Path("data"), "smoke", datasets=("imagenet", "voc2007", "voc2012"), progress=False)
    run, row = Run("random_init", "smoke", 0, Path("data"), Path("runs")), RowWork(names, on_cpu())

    def scored() -> list[str]:
        current.annotation_fingerprints.cache_clear()
        ran = len(quick)
        assert not any(steps.failures for steps in bring_up_to_date(row, [run], 1, None))
        return quick[ran:]

    assert scored() == names
    assert scored() == []
    change_mask(Path("data", train_aug(Path("data")).masks[0]))
    assert scored() == ["voc12_seg_fcn_moco"]
    change_mat(Path("data", train_aug(Path("data")).masks[-1]))
    assert scored() == ["voc12_seg_fcn_moco"]
    move_box(next(Path("data/VOCdevkit/VOC2007/Annotations").glob("*.xml")))
    assert scored() == ["voc07_det_c4_pirl"]
    assert scored() == []


def test_a_record_on_one_list_of_images_is_not_one_on_another(quick: list[str]):
    assert cli.run([*COMMAND, "supervised"]) == 0
    path = Path("runs/smoke/supervised/seed0/semi_supervised_1pct_pirl.json")
    seen = [read_record(path)]
    assert seen[0].transfer_data.keys() == {"imagenet/train", "imagenet/val"}
    names = [each.name for each in sorted(Path("data/smoke/imagenet/train").rglob("*.*"))]
    for count in (2, 3):
        ran = len(quick)
        Path("data/smoke/imagenet/1percent.txt").write_text("\n".join(names[:count]))
        assert cli.run([*COMMAND, "supervised"]) == 0
        assert set(quick[ran:]) == {"semi_supervised_1pct_pirl"}
        seen.append(read_record(path))
    headers = "".join(markdown(one) for one in boards(seen, also_unmeasured=False).values())
    assert len({record.transfer_data["imagenet/1percent.txt"] for record in seen[1:]}) == 2
    assert all(f"on data {','.join(dict(sorted(each.transfer_data.items())).values())} " in headers for each in seen)


def test_a_changed_recipes_numbers_are_shown_and_not_the_published_ones(
    quick: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert cli.run([*COMMAND, "supervised"]) == 0
    record = read_record(Path("runs/smoke/supervised/seed0/voc07_svm_goyal.json"))
    before = [replace(record, seed=seed, recipe_hash="old", metrics={"map": 90.0}) for seed in (1, 2, 3)]
    monkeypatch.setattr("benchmark.runs.reproduce.shown_records", lambda: before)
    capsys.readouterr()
    assert cli.run(["tables", "--scale", "smoke"]) == 0
    whole = Path("runs/smoke/tables.md").read_text()
    assert "90.0" not in capsys.readouterr().out + whole
    assert f"supervised seed 1 at smoke scale ran with other settings (old, not {record.recipe_hash})" in whole


def test_one_failure_is_told_and_loses_nothing_else(
    quick: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    whole = scoring.score

    def fails_once(transfer: Transfer, run: Run, machine: object, **others: object) -> object:
        if transfer.card.id == "voc07_svm_goyal" and run.name == "supervised":
            raise UserError("a planted fault")
        if transfer.card.id == "linear_inat18_pirl" and run.name == "supervised":
            raise ZeroDivisionError("a planted bug")
        return whole(transfer, run, machine, **others)  # type: ignore[arg-type]

    monkeypatch.setattr("benchmark.runs.reproduce.score", fails_once)
    assert cli.run([*COMMAND, "supervised"]) == 1
    shown = capsys.readouterr().out
    assert "FAILED     supervised seed 0  transfer to voc07_svm_goyal: a planted fault" in shown
    assert "FAILED     supervised seed 0  transfer to linear_inat18_pirl: ZeroDivisionError: a planted bug" in shown
    assert len(quick) == 20
    workspaces = [Path("runs/smoke", name, "seed0/workspace") for name in ("random_init", "supervised")]
    assert [workspace.exists() for workspace in workspaces] == [False, True], "what failed goes on from what there is"
    monkeypatch.setattr("benchmark.runs.reproduce.score", whole)
    assert cli.run([*COMMAND, "supervised"]) == 0
    assert len(quick) == 22
    assert not any(workspace.exists() for workspace in workspaces)


def test_without_a_backbone_its_transfers_are_left_out(
    quick: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fails(run: Run, *_: object) -> None:
        raise UserError(f"no {run.name} today")

    monkeypatch.setattr("benchmark.runs.reproduce._pretrain", fails)
    assert cli.run([*COMMAND, "supervised"]) == 1
    shown = capsys.readouterr().out
    assert "no random_init today" in shown
    assert shown.count("left out, there is no backbone") == 27
    assert quick == []


def test_a_recipe_in_no_table_shows_its_numbers_below_them(
    quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/mine.py").write_text("from recipes.random_init import random_init\n\nmine = random_init\n")
    assert cli.run([*COMMAND, "mine", "--recipes-dir", "own"]) == 0
    below = capsys.readouterr().out.partition("## Results that no paper's table shows")[2]
    for name in set(quick):
        if find_transfers()[name].card.refusal("ResNet", ()):
            continue
        assert re.search(rf"\| mine +\| \w+ +\| {name} v\d +\| \w+ +\| 50\.0 \(1\)", below), name
    assert "| random_init |" not in below


OWN = """
from dataclasses import replace
from recipes.random_init import random_init

mine = replace(random_init, after={"earlier": "before"})
before = replace(random_init, title="Earlier")
"""


def test_the_answer_of_a_recipe_after_another_is_remembered_and_watches_both(
    quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/mine.py").write_text(OWN)
    command = [*COMMAND, "mine", "--recipes-dir", "own"]
    assert cli.run(command) == 0
    earlier = Path("runs/smoke/before/seed0/backbone.safetensors")
    assert earlier.is_file()
    ran = len(quick)
    for says, touched in (("Nothing has changed", None), ("pretrain: current", earlier)):
        if touched:
            os.utime(touched, (0, 0))
        capsys.readouterr()
        assert cli.run(command) == 0
        assert says in capsys.readouterr().out
    assert len(quick) == ran


def test_tables_of_a_recipe_are_printed_and_all_for_one_that_is_in_none():
    printed = selected(["pirl"], None)[-1]
    assert "pirl_linear" in printed
    assert "voc07_finetune" not in printed  # its supervised row is another recipe's
    assert selected(["my_own"], None)[-1] == selected(["pirl", "my_own"], None)[-1] == ()
    assert selected([], "jigsaw_shortcuts")[-1] == ("jigsaw_shortcuts",)


def test_numbers_of_two_protocol_versions_are_not_averaged(quick: list[str]):
    assert cli.run([*COMMAND, "supervised"]) == 0
    record = read_record(Path("runs/smoke/supervised/seed0/linear_imagenet_pirl.json"))
    of_mine = [replace(record, recipe="mine", seed=seed) for seed in (0, 1)]
    assert in_no_table(of_mine).count("50.0 ± 0.0 (2)") == 1
    shown = in_no_table([of_mine[0], replace(of_mine[1], transfer_version=record.transfer_version - 1)])
    assert shown.count("50.0 (1)") == 2


def test_the_main_job_has_no_more_columns_than_fit_into_its_quarter_of_an_hour():
    tables = [one for one in read_layouts() if "pirl" in {row.recipe for row in one.rows}]
    assert {column.transfer for one in tables for column in one.columns if column.transfer and not column.long} == {
        "voc07_det_c4_pirl",
        *("linear_imagenet_pirl", "linear_places205_pirl", "linear_inat18_pirl", "voc07_svm_goyal"),
        *("semi_supervised_1pct_pirl", "semi_supervised_10pct_pirl"),
    }
