"""The gate: compares records with leaderboards/expected.csv, whose tolerances come from the spread over seeds.

leaderboards/expected.csv   scale, recipe, transfer, metric -> target and tolerance, and the runs they came from

Besides the scores, it compares the last losses of each pretraining run: at smoke scale, scores are near chance and a
broken method shows only in its loss.
"""

from __future__ import annotations

import csv
import functools
import io
import re
import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.core.errors import UserError
from benchmark.core.plain import fits
from benchmark.records.metric import Metric
from benchmark.records.record import Record
from benchmark.records.seeds import alike, data_key
from benchmark.tables.ledger import NUMBER, csv_lines

if TYPE_CHECKING:
    from benchmark.transfers.contract import ProtocolCard

LEVEL = 0.999  # for each number; a table of numbers that did not move then stays silent about 95 times in 100
ENOUGH = 4  # degrees of freedom; with fewer, the spread is pooled over all protocols of the scale

PRETRAINING = "pretraining"  # in place of a transfer's name, where the numbers are a run's last losses
PRETRAINING_VERSION = 1

RUNS = re.compile(r"\d+@[0-9a-f]{12}( \d+@[0-9a-f]{12})*", re.ASCII)
Key = tuple[str, str, str, str]  # scale, recipe, transfer, metric


@dataclass(frozen=True)
class Expected:
    """A line of expected.csv.

    direction: which way is better, "higher" or "lower". tolerance: how far one more run may be from the target.
    target, tolerance: empty where no spread is known. Such a line compares nothing, but still holds its records' hash.
    runs: "seed@hash" of the records that the target is the mean of, separated by spaces; a record with another hash has
          been edited or replaced. For losses, the hash is the backbone file's: its transfers' records hold them.
    """

    scale: str
    recipe: str
    transfer: str
    metric: str
    direction: str
    target: str
    tolerance: str
    transfer_version: str
    transfer_data: str
    recipe_hash: str
    runs: str

    @property
    def key(self) -> Key:
        return self.scale, self.recipe, self.transfer, self.metric

    @property
    def hashes(self) -> dict[Path, str]:
        """Published path of each record -> its hash."""
        if self.transfer == PRETRAINING:
            return {}
        pairs = (run.split("@") for run in self.runs.split())
        return {Path(self.scale, self.recipe, self.transfer, f"seed{seed}.json"): one for seed, one in pairs}


@dataclass(frozen=True)
class GateFinding:
    """kind: what is wrong. fails: whether it fails the gate, or is only reported."""

    kind: str
    text: str
    fails: bool = True


def with_pretraining(records: Iterable[Record]) -> list[Record]:
    """The records, and one more for each pretraining run that they come from, whose metrics are its last losses. A run
    made twice, with the same losses, is one. Records from before losses were kept add none."""
    records = list(records)
    runs: dict[tuple[str, str, int, str], Record] = {}
    for record in records:
        losses = record.origin.get("losses")
        if losses and fits(losses, dict[str, float]):
            runs[record.scale, record.recipe, record.seed, repr(sorted(losses.items()))] = replace(
                record,
                transfer=PRETRAINING,
                transfer_version=PRETRAINING_VERSION,
                transfer_data={str(record.origin.get("data")): str(record.origin.get("data_fingerprint"))},
                metrics=losses,
            )
    return [*records, *runs.values()]


def expect(
    records: Sequence[Record], cards: Mapping[str, ProtocolCard], current: Collection[str] = ()
) -> list[Expected]:
    """Targets and tolerances from records: the mean over seeds, and a prediction interval for one more run from the
    spread over seeds; neither where no spread is known. cards: the protocols' cards as they are now. current: hashes of
    the recipes as they would run now. Records that match these are preferred."""
    groups = _groups(records, cards, current)
    lines = []
    for key, found in sorted(groups.items()):
        scale, recipe, transfer, metric = key
        is_loss = transfer == PRETRAINING
        spread, freedom = _spread(groups, key)
        if is_loss and not freedom:
            continue
        one = found[0]
        target = statistics.fmean(record.metrics[metric] for record in found)
        width = _quantile(freedom) * spread * (1 + 1 / len(found)) ** 0.5 if freedom else 0.0
        digits = 6 if is_loss else 3  # some losses are small
        known = cards[transfer].metrics if transfer in cards else {}
        higher = known.get(metric, Metric(higher=not is_loss)).higher
        lines.append(
            Expected(
                scale,
                recipe,
                transfer,
                metric,
                "higher" if higher else "lower",
                f"{target:.{digits}f}" if freedom else "",
                f"{width:.{digits}f}" if freedom else "",
                str(one.transfer_version),
                data_key(one),
                one.recipe_hash,
                " ".join(f"{record.seed}@{record.backbone_hash if is_loss else record.hash}" for record in found),
            )
        )
    return lines


def without_target(expected: Iterable[Expected]) -> list[str]:
    """A line for every scale whose scores have no target, since no spread is known there: not even one to pool."""
    scales = dict.fromkeys(line.scale for line in expected if not line.target)
    why = "no recipe has two seeds that differ, so the spread is unknown; run more seeds"
    return [f"{scale} scale: its scores get no target: {why}" for scale in scales]


def _groups(
    records: Sequence[Record], cards: Mapping[str, ProtocolCard], current: Collection[str]
) -> dict[Key, list[Record]]:
    """For each number, the records that its target is the mean of: those that a table would average too."""
    groups: dict[Key, list[Record]] = defaultdict(list)
    for record in records:
        for metric in record.metrics:
            groups[record.scale, record.recipe, record.transfer, metric].append(record)
    versions = {name: card.version for name, card in cards.items()}
    return {key: alike(found, current, versions)[0] for key, found in groups.items()}


def _spread(groups: Mapping[Key, Sequence[Record]], key: Key) -> tuple[float, int]:
    """(standard deviation over seeds, its degrees of freedom). For scores it is pooled over recipes; for losses it is
    the recipe's own, because the losses of two methods differ in size.

    A recipe whose seeds all score exactly the same has features and a protocol without any randomness. It says nothing
    of how far the seeds of other recipes differ, and is pooled with none."""
    scale, _, transfer, metric = key
    values = {one: [r.metrics[one[3]] for r in found] for one, found in groups.items()}
    if transfer == PRETRAINING:
        same = [values[key]]
    else:
        scores = {one: found for one, found in values.items() if one[0] == scale and one[2] != PRETRAINING}
        same_scale = {one: found for one, found in scores.items() if len(set(found)) > 1}
        same = [found for one, found in same_scale.items() if one[2:] == (transfer, metric)]
        if sum(len(found) - 1 for found in same) < ENOUGH:
            same = list(same_scale.values())
    freedom = sum(len(found) - 1 for found in same)
    squares = sum(statistics.pvariance(found) * len(found) for found in same)
    return ((squares / freedom) ** 0.5 if freedom else 0.0), freedom


@functools.cache
def _quantile(freedom: int) -> float:
    from scipy.stats import t  # takes a second to import

    return float(t.ppf((1 + LEVEL) / 2, freedom))


def compare(
    expected: Sequence[Expected], records: Sequence[Record], current: Collection[str] = ()
) -> Iterator[GateFinding]:
    """What moved, is missing, or cannot be compared. Numbers without a target are not reported. current: hashes of the
    recipes as they would run now, whose records are preferred; without any, those of the targets are."""
    by_key: dict[Key, list[Record]] = defaultdict(list)
    for record in records:
        for metric in record.metrics:
            by_key[record.scale, record.recipe, record.transfer, metric].append(record)
    for line in (line for line in expected if line.target):
        name = f"{line.scale} {line.recipe} {line.transfer} {line.metric}"
        found = by_key.get(line.key, [])
        if not found:
            yield GateFinding("missing", f"{name}: {line.target} expected, but there is no record")
        like_target = []
        for record in found:
            if _protocol_and_data(record) == (line.transfer_version, line.transfer_data):
                like_target.append(record)
                continue
            was = f"v{line.transfer_version} on {line.transfer_data}"
            yield GateFinding("incomparable", f"{name} seed {record.seed}: the target is for {was}; accept a new one")
        if like_target:
            yield from _moved(line, name, *alike(like_target, current or {line.recipe_hash}, {}))


def _protocol_and_data(record: Record) -> tuple[str, str]:
    return str(record.transfer_version), data_key(record)


def _moved(line: Expected, name: str, found: Sequence[Record], others: Sequence[Record]) -> Iterator[GateFinding]:
    """found: what is averaged. others: seeds with other settings, which no table would average with them either."""
    for other in others:
        ran = f"seed {other.seed} ran with other settings ({other.recipe_hash}, not {found[0].recipe_hash})"
        yield GateFinding("settings", f"{name}: {ran} and is left out", fails=False)
    value = statistics.fmean(record.metrics[line.metric] for record in found)
    gap = value - float(line.target)
    if found[0].recipe_hash != line.recipe_hash:
        yield GateFinding(
            "settings", f"{name}: not the settings that the target came from ({line.recipe_hash})", fails=False
        )
    if abs(gap) > float(line.tolerance):
        way = "better" if (gap > 0) == (line.direction == "higher") else "worse"
        digits = 4 if line.transfer == PRETRAINING else 1
        yield GateFinding(
            "moved",
            f"{name}: {float(line.target):.{digits}f} ± {float(line.tolerance):.{digits}f} expected, "
            f"{value:.{digits}f} now (seeds {', '.join(str(record.seed) for record in found)}): "
            f"{gap:+.{digits}f}, {way}",
        )


def accepted_hashes(expected: Iterable[Expected]) -> dict[Path, str]:
    """Published path -> hash of the record that expected.csv was written from."""
    return {path: one for line in expected for path, one in line.hashes.items()}


def expected_csv(expected: Iterable[Expected]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(f.name for f in fields(Expected))
    writer.writerows(astuple(line) for line in expected)
    return text.getvalue()


def read_expected(path: Path) -> list[Expected]:
    """Reads strictly: a wrong header, an extra cell, a target that is not a number or occurs twice, or one without a
    tolerance is a UserError naming file and line."""
    if not path.is_file():
        raise UserError(f"{path}: not there; `sslbench check --accept` writes it from the published records")
    lines: dict[Key, Expected] = {}
    for number, line in csv_lines(Expected, path):
        where = f"{path}, line {number}"
        for word in (line.target, line.tolerance):
            if not NUMBER.fullmatch(word) and (line.target or line.tolerance):
                raise UserError(f"{where}: {word!r} is not a number")
        if line.direction not in ("higher", "lower"):
            raise UserError(f"{where}: direction is {line.direction!r}, not higher or lower")
        if not RUNS.fullmatch(line.runs):
            raise UserError(f"{where}: runs are {line.runs!r}, not seed@hash")
        if line.key in lines:
            raise UserError(f"{where}: a second target for {' '.join(line.key)}")
        lines[line.key] = line
    return list(lines.values())
