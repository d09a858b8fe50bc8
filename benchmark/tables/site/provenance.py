"""What a record says of how its number came about, as a page shows it: one page for all seeds of a recipe under a
protocol at a scale."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmark.records.record import Record
from benchmark.tables.site.display import record_page


@dataclass(frozen=True)
class Provenance:
    """records: seed by seed. facts: what is said of each, by what it is about: (fact, one text a record)."""

    page: str
    records: tuple[Record, ...]
    facts: dict[str, list[tuple[str, tuple[str, ...]]]]

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def settings(self) -> str:
        """The recipe as it ran."""
        return json.dumps(self.first.settings, indent=1, sort_keys=True, ensure_ascii=False)


def provenances(records: Iterable[Record]) -> dict[str, Provenance]:
    """By page, in order of scales, recipes and protocols."""
    pages: dict[str, dict[int, Record]] = defaultdict(dict)
    for record in records:
        pages[record_page(record)][record.seed] = record
    ordered = {page: tuple(seeds[seed] for seed in sorted(seeds)) for page, seeds in sorted(pages.items())}
    return {page: Provenance(page, seeds, _side_by_side(seeds)) for page, seeds in ordered.items()}


def _side_by_side(records: tuple[Record, ...]) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    told = [_told(record) for record in records]
    return {
        about: [
            (fact, tuple(one[about].get(fact, "–") for one in told))
            for fact in dict.fromkeys(name for one in told for name in one[about])
        ]
        for about in told[0]
    }


def _told(record: Record) -> dict[str, dict[str, str]]:
    origin = record.origin
    made_by: Mapping[str, Any] = origin.get("made_by", {})
    losses: Mapping[str, float] = origin.get("losses", {})
    commit, device, threads = (made_by.get(name, "–") for name in ("commit", "device", "threads"))
    return {
        "Score": {
            **{name: f"{value:.2f}" for name, value in record.metrics.items()},
            **{f"at {stage}": f"{value:.2f}" for stage, value in record.per_stage.items()},
        },
        "Scored": {
            "recipe hash": record.recipe_hash,
            "backbone hash": record.backbone_hash,
            "record hash": record.hash,
            **{f"read: {name}": fingerprint for name, fingerprint in record.transfer_data.items()},
            **_machine(record.commit, record.device, record.threads, record.versions),
        },
        "Pretrained": {
            **{name: str(origin[key]) for name, key in _PRETRAINED.items() if key in origin},
            **{f"last {name}": f"{value:.4g}" for name, value in losses.items()},
            **_machine(commit, device, threads, made_by.get("versions", {})),
        },
    }


_PRETRAINED = {
    "on": "data",
    "data fingerprint": "data_fingerprint",
    "images": "num_images",
    "seed": "seed",
    "processes": "world_size",
}


def _machine(commit: str, device: str, threads: object, versions: Mapping[str, str]) -> dict[str, str]:
    packages = {f"version of {name}": version for name, version in versions.items()}
    return {"commit": commit or "none", "device": device, "threads": str(threads), **packages}
