"""Records as a DataFrame: tidy, a row for every score, for anybody's own pivots and for the tables here.

Imports no torch, and pandas only when a frame is made: most commands never need it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.core.errors import UserError
from benchmark.core.provenance import LEADERBOARDS
from benchmark.records.folders import read_published, read_runs
from benchmark.records.record import Record

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {  # what `frame` describes; Int64 is the integer that may be missing
    "scale": "str",
    "recipe": "str",
    "seed": "int64",
    "transfer": "str",
    "transfer_version": "int64",
    "metric": "str",
    "stage": "str",
    "value": "float64",
    "recipe_hash": "str",
    "backbone_hash": "str",
    "transfer_data": "str",
    "transfer_fingerprints": "str",
    "commit": "str",
    "device": "str",
    "threads": "int64",
    "torch": "str",
    "pretrain_data": "str",
    "pretrain_fingerprint": "str",
    "pretrain_images": "Int64",
    "pretrain_commit": "str",
    "pretrain_device": "str",
    "pretrain_threads": "Int64",
    "pretrain_processes": "Int64",
}
SCORE = ("metric", "stage", "value")


def frame(folder: Path | str = LEADERBOARDS / "measured") -> pd.DataFrame:
    """Every score of the published records, or of those in another folder: leaderboards/measured or a folder of runs.

    One row for each metric of each record, and one for each stage where the transfer scored several. Texts are "" and
    whole numbers missing where nothing is known. All scales are there, smoke too: compare within one.

    scale:                 paper, photos, desk or smoke.
    recipe, seed:          what was pretrained; changed settings are part of the name, e.g. pirl@batch_size=64.
    transfer, transfer_version: the protocol that scored it.
    metric:                top1, map, ap50 ...; "" for the stages of a record with several, for it does not say whose.
    stage:                 conv1 ... res5; "" for the protocol's own number, of the stage or layers that it chooses.
    value:                 the score, in the unit of the protocol's card; all that come with the benchmark are in %.
    recipe_hash, backbone_hash: 12 hex digits, of the settings as they ran and of the backbone file.
    transfer_data, transfer_fingerprints: what the protocol read, e.g. imagenet/train,imagenet/val, and their
                           fingerprints in that order, separated by commas.
    commit, device, threads, torch: code, machine and version of torch of the transfer.
    pretrain_data, pretrain_fingerprint, pretrain_images: what the backbone learned from, and how many images.
    pretrain_commit, pretrain_device, pretrain_threads, pretrain_processes: code and machine of the pretraining.

    Raises UserError for a folder that is not there or holds a broken record.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one like leaderboards/measured or runs")
    return frame_of(list(read_runs(folder)) or read_published(folder)).reset_index(drop=True)


def frame_of(records: Iterable[Record]) -> pd.DataFrame:
    """The columns of `frame` for records in memory. index: the place of the row's record among them, from 0."""
    import pandas as pd  # a third of a second

    records = list(records)
    scores = [(place, *score) for place, record in enumerate(records) for score in _scores(record)]
    of_records = pd.DataFrame([_about(record) for record in records], columns=[c for c in COLUMNS if c not in SCORE])
    of_scores = pd.DataFrame(scores, columns=["place", *SCORE]).set_index("place")
    return of_records.join(of_scores).rename_axis(None)[list(COLUMNS)].astype(COLUMNS)


def _scores(record: Record) -> Iterator[tuple[str, str, float]]:
    """(metric, stage, value) of everything that was scored."""
    for metric, value in record.metrics.items():
        yield metric, "", value
    metric = next(iter(record.metrics)) if len(record.metrics) == 1 else ""
    for stage, value in record.per_stage.items():
        yield metric, stage, value


def _about(record: Record) -> dict[str, Any]:
    """What all scores of a record share."""
    origin, data = record.origin, sorted(record.transfer_data)
    made_by = origin.get("made_by", {})
    own = ("scale", "recipe", "seed", "transfer", "transfer_version", "recipe_hash", "backbone_hash")
    return {name: getattr(record, name) for name in (*own, "commit", "device", "threads")} | {
        "transfer_data": ",".join(data),
        "transfer_fingerprints": ",".join(record.transfer_data[name] for name in data),
        "torch": record.versions.get("torch", ""),
        "pretrain_data": origin.get("data", ""),
        "pretrain_fingerprint": origin.get("data_fingerprint", ""),
        "pretrain_images": _whole(origin.get("num_images")),
        "pretrain_commit": made_by.get("commit", ""),
        "pretrain_device": made_by.get("device", ""),
        "pretrain_threads": _whole(made_by.get("threads")),
        "pretrain_processes": _whole(origin.get("world_size")),
    }


def _whole(value: Any) -> int | None:
    """What a backbone file says of itself may be anything."""
    return value if type(value) is int else None
