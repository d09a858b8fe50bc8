"""`sslbench check`: says which records are bad or out of date, and which numbers have moved from their targets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.gate.staleness import DataNow, not_good, now_of, own_hashes
from benchmark.gate.targets import (
    Expected,
    GateFinding,
    accepted_hashes,
    compare,
    expect,
    read_expected,
    with_pretraining,
)
from benchmark.records.currency import GONE, Now
from benchmark.records.folders import read_published, scan_published, scan_runs
from benchmark.records.record import Record
from benchmark.records.soundness import faults
from benchmark.tables.board import Board
from benchmark.tables.ledger import LEADERBOARDS
from benchmark.tables.pages import boards, shown_records
from benchmark.transfers.contract import ProtocolCard

EXPECTED = "expected.csv"


def all_findings(
    runs: Path,
    scale: str | None,
    cards: Mapping[str, ProtocolCard],
    data_now: DataNow | None = None,
    leaderboards: Path = LEADERBOARDS,
) -> list[GateFinding]:
    """Everything that is wrong. A number is judged by its runs below `runs` if there are any, otherwise by its
    published records. scale: None means all. data_now: what the data on disk is now, to recognise stale records."""
    published, bad = scan_published(leaderboards / "measured")
    fresh, bad_runs = scan_runs(runs)
    expected = [line for line in read_expected(leaderboards / EXPECTED) if scale in (None, line.scale)]
    published, fresh = ([record for record in some if scale in (None, record.scale)] for some in (published, fresh))
    judged = _judged(with_pretraining(published), with_pretraining(fresh))
    changed = _not_accepted(published, accepted_hashes(expected))
    stale = not_good(published, lambda record: now_of(record, data_now))
    return [
        *(GateFinding("bad record", text) for text in (*bad, *bad_runs)),
        *(GateFinding("bad record", text) for text in _unsound(_published_below(leaderboards, published), cards)),
        *(
            GateFinding("bad record", text)
            for text in _unsound({runs / record.path: record for record in fresh}, cards)
        ),
        *(GateFinding("not accepted", f"{path.as_posix()}: {why}") for path, why in sorted(changed.items())),
        *compare(expected, judged, own_hashes().values()),
        *_against_papers(judged, leaderboards),
        *(GateFinding("stale", f"{path.as_posix()}: {why}", fails=False) for path, why in sorted(stale.items())),
    ]


def accepted(leaderboards: Path, cards: Mapping[str, ProtocolCard]) -> list[Expected]:
    """The lines of expected.csv as they follow from the published records. Raises UserError for a record with
    impossible numbers."""
    records = list(read_published(leaderboards / "measured"))
    if bad := list(_unsound(_published_below(leaderboards, records), cards)):
        raise UserError(f"{'; '.join(bad)}; run these again, or delete them")
    return expect(with_pretraining(records), cards, own_hashes().values())


def flagged(records: Sequence[Record], leaderboards: Path = LEADERBOARDS) -> dict[Path, str]:
    """Published path -> what tables must say about a record: that it is stale, that it is not the one that was
    accepted, or that another seed's record beside it is missing."""
    path = leaderboards / EXPECTED
    accepted = accepted_hashes(read_expected(path)) if path.is_file() else None
    gone: dict[Path, list[str]] = defaultdict(list)
    for path, why in sorted(_missing(records, accepted or {}).items()):
        gone[path.parent].append(f"{path.name} is {why}")

    def of(record: Record) -> Now:
        return now_of(record) if accepted is None else replace(now_of(record), accepted=_accepted(record, accepted))

    found = not_good(records, of)
    paths = sorted(record.published_path for record in records)
    told = {path: "; ".join(filter(None, [found.get(path), *gone.get(path.parent, ())])) for path in paths}
    return {path: text for path, text in told.items() if text}


def _not_accepted(published: Sequence[Record], accepted: Mapping[Path, str]) -> dict[Path, str]:
    """Published path -> why, for every record that is not the one that expected.csv was written from."""
    changed = not_good(published, lambda record: Now(accepted=_accepted(record, accepted)))
    return _missing(published, accepted) | changed


def _accepted(record: Record, accepted: Mapping[Path, str]) -> str:
    return accepted.get(record.published_path, GONE)


def _missing(published: Sequence[Record], accepted: Mapping[Path, str]) -> dict[Path, str]:
    there = {record.published_path for record in published}
    return dict.fromkeys(accepted.keys() - there, "missing, though expected.csv was written from it")


def current_boards(leaderboards: Path = LEADERBOARDS) -> dict[str, Board]:
    """Every table, from published records alone. Records that are stale or not the accepted ones are marked."""
    records = shown_records(leaderboards)
    return boards(records, leaderboards, flagged(records, leaderboards), current=frozenset(own_hashes().values()))


def _judged(published: Sequence[Record], fresh: Sequence[Record]) -> list[Record]:
    there = {(record.scale, record.recipe, record.transfer) for record in fresh}
    return [*fresh, *(r for r in published if (r.scale, r.recipe, r.transfer) not in there)]


def _published_below(leaderboards: Path, records: Sequence[Record]) -> dict[Path, Record]:
    return {leaderboards / "measured" / record.published_path: record for record in records}


def _unsound(records: Mapping[Path, Record], cards: Mapping[str, ProtocolCard]) -> Iterator[str]:
    """What is impossible in these records, by the protocol's card as it is now. Records of an old version are skipped,
    as they are stale anyway."""
    for path, record in records.items():
        card = cards.get(record.transfer)
        if card and card.version == record.transfer_version:
            yield from (f"{path}: {text}" for text in faults(record, card.metrics))


def _against_papers(records: Sequence[Record], leaderboards: Path) -> Iterator[GateFinding]:
    """Numbers measured at paper scale that are not within their transfer's tolerance of the reported one."""
    paper = [record for record in records if record.scale == "paper"]
    for one in boards(paper, leaderboards, also_unmeasured=False).values() if paper else ():
        for line in one.lines:
            for index, head in enumerate(one.heads):
                if head.kind == "verdict" and line[index].text in ("above", "below"):
                    measured, gap = line[index - 2], line[index - 1]
                    text = f"{one.layout.key}, {line[0].text}, {head.column}: {measured.text} measured at paper scale"
                    yield GateFinding("moved", f"{text}, {gap.text}: {line[index].text} the reported number")


def findings_text(findings: Sequence[GateFinding]) -> str:
    lines = [f"{one.kind.upper():12} {one.text}" for one in sorted(findings, key=lambda one: (one.fails, one.kind))]
    failing = sum(one.fails for one in findings)
    return "\n".join([*lines, f"{failing} findings fail the gate, {len(findings) - failing} do not."])
