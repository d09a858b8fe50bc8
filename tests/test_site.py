"""The site: whole, offline, sorted and filtered in a real browser; and pages take one pass over the records."""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from test_results import a_record

from benchmark.gate.pages import protocols
from benchmark.records import folders, frames
from benchmark.records.folders import read_published
from benchmark.records.record import Record, read_record
from benchmark.tables.bibtex import bibtex
from benchmark.tables.ledger import LEADERBOARDS, Source, read_ledger, read_names, read_sources
from benchmark.tables.pages import boards, leaderboard_files, shown_records
from benchmark.tables.reported import printed_in
from benchmark.tables.site import site_files
from benchmark.tables.site.display import verdict
from benchmark.tables.site.plots import headline

BOARDS = boards(shown_records())
LEDGER = read_ledger()
PROTOCOLS = protocols()
SITE = site_files(BOARDS, PROTOCOLS)


def test_every_table_has_a_page_with_a_plot_and_downloads():
    for key in BOARDS:
        page = SITE[f"{key}.html"]
        for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
            ET.fromstring(svg)
        assert "<svg" in page, key
        assert {f"data/{key}.csv", f"data/{key}.json", f"data/{key}.tex"} <= SITE.keys()


def test_every_link_leads_somewhere_on_the_site_and_nothing_is_loaded_from_elsewhere():
    for name, page in SITE.items():
        if name.endswith(".html"):
            here = PurePosixPath(name).parent
            for link in re.findall(r'(?<!:)\b(?:href|src)="([^"]+)"', page):
                path, _, anchor = link.partition("#")
                assert not re.match(r"[a-z]+:|//", link), (name, link)
                leads_to = posixpath.normpath(here / path) if path else name
                assert leads_to in SITE, (name, link)
                assert not anchor or f'id="{anchor}"' in SITE[leads_to], (name, link)


def test_a_table_links_its_protocols_recipes_records_pictures_and_bibtex():
    page = SITE["pirl_linear.html"]
    for link in (
        *("protocols.html#linear_imagenet_pirl", "recipes/pirl.html", "records.html", "#pictures"),
        *("plots/pirl_linear-1.svg", "data/pirl_linear.bib", "records/desk/pirl/linear_imagenet_pirl.html"),
    ):
        assert f'href="{link}"' in page, link
    for key, board in BOARDS.items():
        records = {record.published_path for line in board.lines for cell in line for record in cell.records}
        for path in records:
            assert f'href="records/{path.parent.as_posix()}.html"' in SITE[f"{key}.html"], (key, path)


def test_a_record_on_the_site_is_the_published_one_and_its_page_says_where_it_comes_from():
    path = "desk/pirl/linear_imagenet_pirl/seed0.json"
    published = LEADERBOARDS / "measured" / path
    record = read_record(published)
    assert SITE[f"records/{path}"] == published.read_text(encoding="utf-8")
    page = SITE["records/desk/pirl/linear_imagenet_pirl.html"]
    for fact in (record.commit, record.recipe_hash, record.backbone_hash, *record.transfer_data.values()):
        assert f">{fact}<" in page, fact


def test_a_verdict_is_a_mark_and_no_column():
    page = SITE["pirl_linear.html"]
    assert any(head.kind == "verdict" for head in BOARDS["pirl_linear"].heads)
    assert "verdict</th>" not in page
    assert "ordered as reported relative to 4 of the 5 other rows" in page
    assert [verdict(f"order {same}/4").mark for same in range(5)] == list("○◔◑◕●")
    assert verdict("order 1/40").mark == "◔"  # not none
    assert verdict("order 39/40").mark == "◕"  # not all
    assert [verdict(words).mark for words in ("above", "below", "reproduced within 0.5")] == list("▲▼✓")


def test_spread_over_seeds_is_drawn():
    """Each mark of a mean of several seeds has a bar as wide as twice its standard deviation."""
    (_, plot), board = headline(BOARDS) or pytest.fail("nothing is measured"), BOARDS["pirl_linear"]
    at = [head.title for head in board.heads].index("ImageNet top-1, desk")
    spreads = sorted(line[at].std for line in board.lines if line[at].std)
    bars = [group for group in groups(ET.fromstring(plot.svg)) if group.get("id", "").startswith("LineCollection")]
    lengths = sorted(length for group in bars for path in group.iter(f"{{{SVG}}}path") if (length := long(path)) > 0)
    assert len(lengths) == len(spreads) > 3
    assert [one / lengths[-1] for one in lengths] == pytest.approx([one / spreads[-1] for one in spreads], abs=0.01)


def long(path: ET.Element) -> float:
    (_, start, *_), (_, end, *_) = (part.split(" ") for part in re.findall(r"[ML] [-\d. ]+", path.get("d", "")))
    return abs(float(end) - float(start))


@pytest.mark.parametrize("source", read_sources().values(), ids=lambda one: one.key)
def test_every_paper_has_bibtex(source: Source):
    text = SITE[f"bibtex/{source.key}.bib"]
    assert re.match(r"@(article|inproceedings|misc)\{" + source.key + ",\n", text)
    assert text.count("{") == text.count("}")
    assert f"year = {{{source.year}}}" in text or not source.year
    assert f"eprint = {{{source.arxiv_id}}}" in text or not source.arxiv_id
    assert "et al" not in text
    assert "&" not in text.replace(r"\&", "")


def test_bibtex_names_authors_as_bibtex_does():
    told = {"Misra & van der Maaten": "Misra and van der Maaten", "Chen X. et al.": "Chen, X. and others"}
    told |= {"Google Research": "{Google Research}", "van den Oord et al.": "van den Oord and others"}
    for authors, wanted in told.items():
        assert f"  author = {{{wanted}}},\n" in bibtex([Source("key", "T", authors, "CVPR", "2020", "")])
    assert "author" not in bibtex([Source("key", "T", "unknown", "CVPR", "2020", "")])


def test_measured_numbers_are_drawn_against_reported_ones():
    assert "Rank agreement (Kendall&#39;s τ): desk +" in SITE["pirl_linear.html"]


def test_a_row_has_one_colour_and_dash_in_all_curves_of_its_table():
    several = 0
    for key, board in BOARDS.items():
        if board.layout.plot == "lines":
            found = [looks_of_curves(svg) for name, svg in SITE.items() if name.startswith(f"plots/{key}-")]
            several += len(found) > 1
            for one in found:
                assert len(set(one.values())) == len(one), key
            for title in set().union(*found):
                assert len({one[title] for one in found if title in one}) == 1, (key, title)
    assert several > 5


def looks_of_curves(svg: str) -> dict[str, tuple[str, bool]]:
    """Name in the legend -> (colour, is dashed) of the line before it."""
    legend = svg[svg.index('id="legend_') :]
    line = r"(dashoffset: 0; )?stroke: (#\w{6}); stroke-width: [\d.]+(?(1)|; stroke-linecap)"
    found = re.findall(line + r".*?<text[^>]*>([^<]+)<", legend, re.DOTALL)
    assert len({name for *_, name in found}) == len(found) > 0
    return {name: (colour, bool(dashes)) for dashes, colour, name in found}


def test_methods_stand_at_their_years_where_there_are_three():
    years = {name: one.year for name, one in read_names()["method"].items()}
    drawn = [key for key in BOARDS if "by the year of the method" in SITE[f"{key}.html"]]
    assert {"moco_linear", "pirl_linear", "cpcv2_linear"} <= set(drawn)
    for key, one in BOARDS.items():
        scored = {row.method for row in one.layout.rows if years.get(row.method)}
        if len({years[method] for method in scored}) < 3 or one.layout.plot == "lines":
            assert key not in drawn
    for key in drawn:
        figures = re.findall(r"<figure>.*?</figure>", SITE[f"{key}.html"], re.DOTALL)
        (figure,) = [one for one in figures if "by the year" in one]
        layout = BOARDS[key].layout
        found = printed_in(layout, LEDGER[layout.source])
        (column,) = [one.title for one in layout.columns if f"<figcaption>{one.title}" in figure]
        rows = [row for row in layout.rows if years.get(row.method) and (row.key, column) in found]
        assert len(rows) > 2
        wanted = sorted((int(years[row.method]), row.title, found[row.key, column].value) for row in rows)
        names, scores = drawn_rows(figure)
        told = sorted((int(name[:4]), name[5:], score) for name, score in zip(names, scores, strict=True))
        assert [year for year, _, _ in told] == [year for year, _, _ in wanted], key
        for (_, name, _), (_, title, _) in zip(told, wanted, strict=True):
            assert title.startswith(name.removesuffix("…")), key  # long names are cut
        drawn_scores = [score for _, _, score in told]
        assert drawn_scores == pytest.approx([score for _, _, score in wanted], abs=0.1), key  # as ticks tell it
        assert [int(name[:4]) for name in names] == sorted(int(name[:4]) for name in names)
        assert "currentColor" in figure  # in the dark too


def drawn_rows(figure: str) -> tuple[list[str], list[float]]:
    """(the name of every row, the score of its dot as the axis's ticks tell it), from above."""
    found = re.search(r"<svg.*?</svg>", figure, re.DOTALL)
    assert found
    (axes,) = [group for group in groups(ET.fromstring(found.group())) if group.get("id") == "axes_1"]
    ticks = {axis: [g for g in groups(axes) if g.get("id", "").startswith(f"{axis}tick")] for axis in "xy"}
    names = [" ".join(text.text or "" for text in tick.iter(f"{{{SVG}}}text")) for tick in ticks["y"]]
    scale = [(float(one.get("x", "")), float("".join(tick.itertext()))) for tick in ticks["x"] for one in uses(tick)]
    own = [group for group in axes if not group.get("id", "").startswith("matplotlib.axis")]
    dots = sorted((float(dot.get("y", "")), float(dot.get("x", ""))) for group in own for dot in uses(group))
    return names, [between(x, scale) for _, x in dots]


SVG = "http://www.w3.org/2000/svg"


def groups(element: ET.Element) -> list[ET.Element]:
    return list(element.iter(f"{{{SVG}}}g"))


def uses(element: ET.Element) -> list[ET.Element]:
    return list(element.iter(f"{{{SVG}}}use"))


def between(place: float, ticks: list[tuple[float, float]]) -> float:
    """What an axis says there, from the places of its first and last tick."""
    (start, low), (end, high) = ticks[0], ticks[-1]
    return low + (place - start) / (end - start) * (high - low)


def test_the_same_records_give_the_same_site():
    assert site_files(BOARDS, PROTOCOLS) == SITE


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    root = tmp_path_factory.mktemp("site")
    for name, text in SITE.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_text(text, encoding="utf-8")
    playwright = pytest.importorskip("playwright.sync_api", reason="NO BROWSER TEST: playwright is not installed")
    with playwright.sync_playwright() as engine:
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        try:
            browser = engine.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"NO BROWSER TEST: no Chromium starts here; `playwright install chromium` brings one ({error})")
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("requestfailed", lambda request: page.faults.append(request.url))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else page.faults.append(r.url))
        page.root = root
        yield page
        browser.close()


def opened(page: Any, key: str, theme: str = "light", show: str = "all") -> Any:
    page.goto(f"file://{page.root}/{key}.html?theme={theme}&show={show}")
    page.wait_for_selector("body[data-ready]")
    return page


def methods(page: Any) -> list[str]:
    """Without the letters of footnotes."""
    return page.eval_on_selector_all(
        "table.board tbody td.method",
        "cells => cells.filter(cell => cell.checkVisibility())"
        ".map(cell => [...cell.childNodes].find(one => one.textContent.trim()).textContent.trim())",
    )


def test_a_browser_sorts_by_number_and_filters_without_a_network(page: Any):
    opened(page, "pirl_linear")
    before = methods(page)
    assert before == [row.title for row in BOARDS["pirl_linear"].layout.rows]
    head = page.locator("table.board thead th", has_text="VOC07 mAP, reported").first
    column = page.locator("table.board thead th").all_inner_texts().index(head.inner_text())
    for order in ("ascending", "descending"):
        head.click()
        page.wait_for_selector(f"table.board thead th[aria-sort={order}]")
        texts = page.locator(f"table.board tbody tr td:nth-child({column + 1})").all_inner_texts()
        values = [float(text) for text in texts if text != "–"]
        assert values == sorted(values, reverse=order == "descending")
        assert len(values) > 3
        assert "–" not in (texts[-len(values) :] if order == "ascending" else texts[: len(values)])
    page.locator("input[type=search]").fill("npid")
    wanted = sorted(name for name in before if "NPID" in name)
    page.wait_for_function(f"document.querySelectorAll('table.board tbody tr').length == {len(wanted)}")
    assert sorted(methods(page)) == wanted
    page.locator("input[type=search]").fill("")
    page.wait_for_function(f"document.querySelectorAll('table.board tbody tr').length == {len(before)}")
    assert page.faults == []


def test_a_browser_filters_what_is_measured_and_follows_a_number_to_its_record(page: Any):
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"file://{page.root}/index.html")
    tables = page.locator(".chapters ul li:visible")
    assert page.locator("figure.headline svg").is_visible()
    assert tables.count() == sum(any(cell.records for line in one.lines for cell in line) for one in BOARDS.values())
    page.locator("button[data-show=all]").click()
    assert tables.count() == len(BOARDS)
    page.locator("button[data-show=measured]").click()
    page.locator(".chapters a[href='pirl_linear.html']").click()
    page.wait_for_selector("body[data-ready]")
    every = [row.title for row in BOARDS["pirl_linear"].layout.rows]
    assert methods(page) == [name for name in every if name != "Colorization"]  # which nobody has measured here
    page.locator("button[data-show=all]").click()
    assert methods(page) == every
    assert page.locator("button[aria-pressed=true]").inner_text() == f"All rows: {len(every)}"
    page.locator("td.measured a[href='records/desk/pirl/linear_imagenet_pirl.html']").click()
    page.wait_for_url("**/records/desk/pirl/linear_imagenet_pirl.html")
    assert page.locator("h1").inner_text() == "pirl, linear_imagenet_pirl"
    path = LEADERBOARDS / "measured/desk/pirl/linear_imagenet_pirl/seed0.json"
    assert read_record(path).commit in page.locator("table.provenance").inner_text()
    page.locator("a[href$='seed0.json']").click()
    page.wait_for_url("**/seed0.json")
    assert '"recipe": "pirl"' in page.content()
    assert page.faults == []


def test_dark_and_light_differ_and_a_phone_does_not_scroll_sideways(page: Any):
    colour = "getComputedStyle(document.body).backgroundColor"
    light = opened(page, "rotnet_places205", "light").evaluate(colour)
    dark = opened(page, "rotnet_places205", "dark").evaluate(colour)
    assert light == "rgb(255, 255, 255)" != dark
    page.locator("#theme").click()
    assert page.evaluate(colour) == light
    page.set_viewport_size({"width": 390, "height": 844})
    kinds = ("index", "discrepancies", "protocols", "recipes", "records", "papers")
    for key in (*kinds, "recipes/pirl", "records/desk/pirl/linear_imagenet_pirl", *BOARDS):
        page.goto(f"file://{page.root}/{key}.html?show=all")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, key


WORDS_IN_PLOTS = """svgs => svgs.map(svg => {
    const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    return [...svg.querySelectorAll("text")].map(text => {
        const {left, top, right, bottom} = text.getBoundingClientRect();
        return [text.textContent, parseFloat(getComputedStyle(text).fontSize) * scale, left, top, right, bottom];
    });
})"""


@pytest.mark.parametrize("key", ["index", *BOARDS])
def test_words_in_plots_can_be_read_on_a_phone(key: str, page: Any):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"file://{page.root}/{key}.html")
    for words in page.eval_on_selector_all("figure svg", WORDS_IN_PLOTS):
        assert min(pixels for _, pixels, *_ in words) >= 10
        over = [(one[0], other[0]) for one, other in combinations(words, 2) if overlap(one[2:], other[2:]) > 2]
        assert over == []


def overlap(one: list[float], other: list[float]) -> float:
    """Of two boxes (left, top, right, bottom): the shorter side of what they share, in pixels."""
    return min(min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1]))


def test_pages_import_nothing_that_only_runs_need():
    """Half of the time that pages take is spent on imports; torch and torchvision come with the recipes."""
    code = """
import sys
from benchmark.gate.check import current_boards
from benchmark.tables.site import site_files
site_files(current_boards(), [])
unwanted = {"sklearn", "pyarrow.parquet", "scipy.io", "tensorboard", "itables", "pycocotools", "faiss", "rich"}
print(*unwanted & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def many(count: int) -> list[Record]:
    layouts = [("pirl", "voc07_svm_goyal", "map"), ("rotation", "linear_imagenet_pirl", "top1")]
    stages = dict.fromkeys(("conv1", "res2", "res3", "res4", "res5"), 50.0)
    return [
        a_record(recipe=recipe, transfer=transfer, seed=seed, metrics={metric: 50.0}, detail={"per_stage": stages})
        for recipe, transfer, metric in layouts
        for seed in range(count // 2)
    ]


def test_the_work_grows_with_the_records_and_not_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Counted, not timed: each file is parsed once, and each record is looked at once, for all tables together."""
    work: Counter[str] = Counter()

    def counting(module: Any, name: str) -> None:
        real = getattr(module, name)

        def counted(*arguments: Any, **more: Any) -> Any:
            work[name] += 1
            return real(*arguments, **more)

        monkeypatch.setattr(module, name, counted)

    counting(folders, "read_record")
    counting(frames, "_about")
    counting(frames, "_scores")
    done = {}
    for count in (20, 200):
        for record in many(count):
            path = tmp_path / str(count) / record.published_path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(record.to_bytes())
        work.clear()
        leaderboard_files(boards(list(read_published(tmp_path / str(count)))))
        done[count] = dict(work)
    assert done[20] == {"read_record": 20, "_about": 20, "_scores": 20}
    assert done[200] == {name: 10 * times for name, times in done[20].items()}
