"""Exports hold what the tables show, in formats that other programs read; cards, what ledger and records hold."""

from __future__ import annotations

import csv
import io
import json

import pytest

from benchmark import cli
from benchmark.card import card
from benchmark.errors import UserError
from benchmark.export import export_files
from benchmark.ledger import LEADERBOARDS, read_ledger
from benchmark.pages import boards, shown_records
from benchmark.results import read_published

BOARDS = boards(shown_records())
FILES = export_files(BOARDS)


@pytest.mark.parametrize("key", BOARDS)
def test_csv_and_json_give_the_table_back(key: str):
    one = BOARDS[key]
    header, *lines = csv.reader(io.StringIO(FILES[f"{key}.csv"]))
    assert header == [head.title for head in one.heads]
    assert lines == [[cell.text for cell in line] for line in one.lines]
    content = json.loads(FILES[f"{key}.json"])
    assert [[cell.get("number") for cell in row] for row in content["rows"]] == [
        [cell.number for cell in line] for line in one.lines
    ]
    assert [note["mark"] for note in content["footnotes"]] == [note.mark for note in one.footnotes]


@pytest.mark.parametrize("key", BOARDS)
def test_latex_has_every_row_and_no_character_that_latex_would_take_for_its_own(key: str):
    text = FILES[f"{key}.tex"]
    assert text.isascii()
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    rows = text.split(r"\hline")[2].strip().splitlines()
    assert len(rows) == len(BOARDS[key].lines)
    for row in rows:
        assert row.replace(r"\&", "").count("&") == len(BOARDS[key].heads) - 1
        assert not set("%_#") & set(row.replace(r"\%", "").replace(r"\_", "").replace(r"\#", ""))


def test_bold_stays_bold():
    assert r"\textbf{63.6}" in FILES["pirl_linear.tex"]
    assert r"\underline{80.7}" in FILES["pirl_detection_voc0712.tex"]
    assert (
        r"$\Delta$" in FILES["pirl_detection_voc0712.tex"]
        or r"\ensuremath{\Delta}" in FILES["pirl_detection_voc0712.tex"]
    )


def test_a_card_has_every_reported_number_of_the_method_and_every_measured_one():
    text = card("pirl")
    for lines in read_ledger().values():
        for line in lines:
            if line.method == "pirl":
                assert f"  {line.value} {line.unit}".rstrip() in text, line
    assert text.startswith("PIRL (pirl; 2020")
    for record in shown_records():
        if record.recipe == "pirl":
            assert f"{record.transfer} v{record.transfer_version}" in text
            assert record.commit[:12] in text


def test_a_method_is_found_by_any_of_its_names(capsys: pytest.CaptureFixture[str]):
    assert card("instdisc") == card("npid") == card("instdis")
    with pytest.raises(UserError, match=r"no method 'pirll' \(did you mean pirl"):
        card("pirll")
    assert cli.run(["show", "mundhenk"]) == 0
    assert "Measured: nothing published." in capsys.readouterr().out
