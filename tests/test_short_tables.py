"""The tables that `reproduce` prints: narrow, with every measured number and nothing that the whole table has not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from benchmark.tables.board import Board, Cell
from benchmark.tables.pages import boards, shown_records
from benchmark.tables.short import WIDTH, short_table

DESK = boards([record for record in shown_records() if record.scale == "desk"], also_unmeasured=False)
FOUR = {key: one for key, one in DESK.items() if sum(head.kind == "measured" for head in one.heads) <= 4}


@pytest.mark.parametrize("key", DESK)
def test_no_line_is_wider_than_a_terminal(key: str):
    assert max(map(len, short_table(DESK[key]).splitlines())) <= WIDTH == 100


def columns(board: Board) -> list[tuple[int, int]]:
    """(place of the reported column, place of a measured one beside it)"""
    places = {head.column: at for at, head in enumerate(board.heads) if head.kind in ("reported", "computed")}
    return [(places[head.column], at) for at, head in enumerate(board.heads) if head.kind == "measured"]


@pytest.mark.parametrize("key", FOUR)
def test_each_row_stands_on_one_line_with_both_numbers(key: str):
    board, lines = DESK[key], short_table(DESK[key]).splitlines()
    left_out = 0
    for line in board.lines:
        cells = [(line[one], line[other]) for one, other in columns(board)]
        if not any(measured.text for _, measured in cells):
            left_out += 1
            continue
        wanted = [text for one, other in cells for text in (one.text or "–", other.text.partition(" (")[0] or "–")]
        name = line[0].text[:29]
        found = [" ".join(one[len(name) :].lstrip("…").split()) for one in lines if one.startswith(name)]
        own = [re.sub(" ?± ?", "±", text) for text in (" ".join(wanted), *found)]
        assert own[0] in own[1:], (name, wanted, found)
    told = [line for line in lines if "without a measured number left out" in line]
    assert [int(line.split()[0]) for line in told] == ([left_out] if left_out else [])


@pytest.mark.parametrize("key", FOUR)
def test_the_rank_agreement_of_each_column_stands_below_it(key: str):
    board = DESK[key]
    last = next(line for line in short_table(board).splitlines() if line.startswith("Kendall's τ"))
    found = [one.every_row for one in board.agreements]
    wanted = [
        "–" if one.rows < 2 else f"{'tied' if one.tau is None else f'{one.tau:+.2f}'} ({one.rows})" for one in found
    ]
    assert re.findall(r"(?:[+-]\d\.\d\d|tied) \(\d+\)|–", last) == wanted


def test_more_columns_stand_below_each_other_with_their_names_again():
    text = short_table(DESK["pirl_layers_imagenet"])
    blocks = [line for line in text.splitlines() if "paper" in line]
    assert [line.count("desk") for line in blocks] == [4, 1]
    assert text.count("\nPIRL ") == 2


def test_long_names_are_cut_and_what_must_be_said_first_is_said():
    board = DESK["pirl_linear"]
    names = [Cell("A method with a name of many words, and more"), *(line[0] for line in board.lines[1:])]
    lines = tuple((name, *line[1:]) for name, line in zip(names, board.lines, strict=True))
    text = short_table(replace(board, lines=lines, opening="Nothing is settled. " * 9))
    assert "\nA method with a name of many …  " in text
    assert "Nothing is settled." in text
    assert max(map(len, text.splitlines())) <= WIDTH
