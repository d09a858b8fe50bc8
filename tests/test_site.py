"""The site: whole, offline, sorted and filtered in a real browser; and pages take one pass over the records."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_results import a_record

from benchmark.records import folders, frames
from benchmark.records.folders import read_published
from benchmark.records.record import Record
from benchmark.tables.ledger import read_ledger, read_names
from benchmark.tables.pages import boards, leaderboard_files, shown_records
from benchmark.tables.reported import printed_in
from benchmark.tables.site import site_files

BOARDS = boards(shown_records())
LEDGER = read_ledger()
SITE = site_files(BOARDS)


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
            for link in re.findall(r'(?<!:)\b(?:href|src)="([^"]+)"', page):
                path, _, anchor = link.partition("#")
                assert not re.match(r"[a-z]+:|//", link), (name, link)
                assert not path or path in SITE, (name, link)
                assert not anchor or f'id="{anchor}"' in SITE[path or name], (name, link)


def test_measured_numbers_are_drawn_against_reported_ones():
    assert "against reported: rank agreement (Kendall&#39;s τ) +" in SITE["pirl_linear.html"]


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
        names = Counter(row.title if len(row.title) <= 18 else f"{row.title[:17]}…" for row in rows)
        assert sum(names.values()) > 2
        points, texts = drawn_points(figure)
        assert texts == names, key
        wanted = sorted((int(years[row.method]), found[row.key, column].value) for row in rows)
        drawn_years, drawn_scores = zip(*sorted(points.elements()), strict=True)
        assert drawn_years == tuple(year for year, _ in wanted), key
        assert drawn_scores == pytest.approx([score for _, score in wanted], abs=0.06), key  # ticks tell tenths
        assert "currentColor" in figure  # in the dark too


def drawn_points(figure: str) -> tuple[Counter[tuple[int, float]], Counter[str]]:
    """((year, score) of every dot as the axes' ticks tell it, to a tenth; every text but the ticks')."""
    found = re.search(r"<svg.*?</svg>", figure, re.DOTALL)
    assert found
    (axes,) = [group for group in groups(ET.fromstring(found.group())) if group.get("id") == "axes_1"]
    ticks = {axis: [g for g in groups(axes) if g.get("id", "").startswith(f"{axis}tick")] for axis in "xy"}
    years, scores = (
        [(float(one.get(axis, "")), float("".join(tick.itertext()))) for tick in ticks[axis] for one in uses(tick)]
        for axis in "xy"
    )
    own = [group for group in axes if not group.get("id", "").startswith("matplotlib.axis")]
    points = Counter(
        (round(between(float(dot.get("x", "")), years)), round(between(float(dot.get("y", "")), scores), 1))
        for group in own
        for dot in uses(group)
    )
    return points, Counter(text.text or "" for group in own for text in group.iter(f"{{{SVG}}}text"))


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
    assert site_files(BOARDS) == SITE


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    root = tmp_path_factory.mktemp("site")
    for name, text in SITE.items():
        (root / name).parent.mkdir(exist_ok=True)
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


def opened(page: Any, key: str, theme: str = "light") -> Any:
    page.goto(f"file://{page.root}/{key}.html?theme={theme}")
    page.wait_for_selector("body[data-ready]")
    return page


def methods(page: Any) -> list[str]:
    """Without the letters of footnotes."""
    return page.eval_on_selector_all(
        "table.board tbody td.method", "cells => cells.map(cell => cell.firstChild.data.trim())"
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


def test_dark_and_light_differ_and_a_phone_does_not_scroll_sideways(page: Any):
    colour = "getComputedStyle(document.body).backgroundColor"
    light = opened(page, "rotnet_places205", "light").evaluate(colour)
    dark = opened(page, "rotnet_places205", "dark").evaluate(colour)
    assert light == "rgb(255, 255, 255)" != dark
    page.locator("#theme").click()
    assert page.evaluate(colour) == light
    page.set_viewport_size({"width": 390, "height": 844})
    for key in ("index", "discrepancies", "pirl_linear", "moco_detection_previous_ap50"):
        page.goto(f"file://{page.root}/{key}.html")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, key
    assert page.faults == []


def test_pages_import_nothing_that_only_runs_need():
    """Half of the time that pages take is spent on imports; torch and torchvision come with the recipes."""
    code = """
import sys
from benchmark.gate.check import current_boards
from benchmark.tables.site import site_files
site_files(current_boards())
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
