"""Exports hold what the tables show, in formats that other programs read; cards, what ledger and records hold."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator

import pytest
from pylatexenc import latex2text, latexwalker
from pylatexenc.latex2text import LatexNodes2Text, MacroTextSpec
from pylatexenc.latexwalker import LatexMacroNode, LatexNode, LatexSpecialsNode, LatexWalker
from pylatexenc.macrospec import std_macro

from benchmark import cli
from benchmark.core.errors import UserError
from benchmark.gate.check import flagged
from benchmark.recipe.catalogue import find_recipes
from benchmark.tables.export import export_files
from benchmark.tables.layout import read_layouts, transfers_of
from benchmark.tables.ledger import LEADERBOARDS, by_any_name, read_ledger, read_names
from benchmark.tables.method_page import method_page
from benchmark.tables.pages import boards, shown_records

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


def text_of(latex: str) -> str:
    """What it would print, superscripts left out."""
    known, texts = latexwalker.get_default_latex_context_db(), latex2text.get_default_latex_context_db()
    known.add_context_category("marks", prepend=True, macros=[std_macro("textsuperscript", False, 1)])
    shown = [MacroTextSpec("checkmark", "✓"), MacroTextSpec("textsuperscript", "")]
    texts.add_context_category("marks", prepend=True, macros=shown)
    nodes = LatexWalker(latex, latex_context=known, tolerant_parsing=False).get_latex_nodes()[0]
    return LatexNodes2Text(texts, math_mode="text").nodelist_to_text(nodes).strip()


# all that LaTeX and amssymb define; another would have to be looked up there
MACROS = {
    "caption", "checkmark", "Delta", "ensuremath", "footnotesize", "hline", "label", "par", "pm", "tau",
    "textasciicircum", "textbf", "textendash", "textquotedblleft", "textquotedblright", "textrightarrow",
    "textsuperscript", "texttimes", "underline", "\\", "%", "&", "_", "#",
}  # fmt: skip


@pytest.mark.parametrize("key", BOARDS)
def test_latex_parses_and_says_what_the_table_says(key: str):
    """By a parser that, told to be strict, stops at an open brace or environment. No TeX is needed."""
    one, text = BOARDS[key], FILES[f"{key}.tex"]
    ((table, *rest),) = [LatexWalker(text, tolerant_parsing=False).get_latex_nodes()[0]]
    assert table.environmentname == "table"
    assert "".join(node.latex_verbatim() for node in rest).strip() == ""
    assert {name for name in macros(table) if len(name) > 2} <= MACROS
    (grid,) = [node for node in table.nodelist if getattr(node, "environmentname", "") == "tabular"]
    columns, cells = grid.nodeargd.argnlist[-1].latex_verbatim(), cells_of(grid)
    assert re.fullmatch(r"\{[lr]+\}", columns)
    assert len(columns) - 2 == len(one.heads)
    assert [[text_of(cell) for cell in row] for row in cells] == [
        [head.title for head in one.heads],
        *([cell.text or "–" for cell in line] for line in one.lines),
    ]


def macros(node: LatexNode) -> Iterator[str]:
    if isinstance(node, LatexMacroNode):
        yield node.macroname
    arguments = node.nodeargd.argnlist if getattr(node, "nodeargd", None) else []
    for child in [*(getattr(node, "nodelist", None) or []), *arguments]:
        yield from macros(child)


def cells_of(grid: LatexNode) -> list[list[str]]:
    """Rows of cells as LaTeX, rules left out."""
    rows: list[list[str]] = [[""]]
    for node in grid.nodelist:
        if isinstance(node, LatexMacroNode) and node.macroname == "\\":
            rows.append([""])
        elif isinstance(node, LatexSpecialsNode) and node.specials_chars == "&":
            rows[-1].append("")
        elif not (isinstance(node, LatexMacroNode) and node.macroname == "hline"):
            rows[-1][-1] += node.latex_verbatim()
    return rows[:-1]  # nothing follows the last line's end


def test_bold_stays_bold():
    assert r"\textbf{63.6}" in FILES["pirl_linear.tex"]
    assert r"\underline{80.7}" in FILES["pirl_detection_voc0712.tex"]
    assert (
        r"$\Delta$" in FILES["pirl_detection_voc0712.tex"]
        or r"\ensuremath{\Delta}" in FILES["pirl_detection_voc0712.tex"]
    )


def page(method: str) -> str:
    records = shown_records()
    return method_page(method, records, flagged(records))


def test_a_page_has_every_reported_number_of_the_method_and_every_measured_one():
    text = page("pirl")
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
    assert page("instdisc") == page("npid") == page("instdis")
    with pytest.raises(UserError, match=r"no method 'pirll' \(did you mean pirl"):
        page("pirll")
    assert cli.run(["show", "mundhenk"]) == 0
    assert "Measured: nothing published." in capsys.readouterr().out


def test_every_recipe_has_a_page_whether_or_not_a_paper_reports_it():
    names = read_names(LEADERBOARDS / "names.csv")["method"]
    with_transfers = [layout for layout in read_layouts() if transfers_of([layout])]
    shown = {row.recipe: layout.key for layout in with_transfers for row in layout.rows}
    records, known = shown_records(), by_any_name(names)
    for recipe in find_recipes():
        text = method_page(recipe, records, {})
        assert ("by no paper in the ledger" in text) == (recipe not in known), recipe
        assert recipe not in shown or f"leaderboards/{shown[recipe]}.md" in text
