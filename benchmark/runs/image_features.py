"""`sslbench features`: what a backbone makes of each of the user's own images, as a file for other programs."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from benchmark.backbones.norms import without_groups
from benchmark.backbones.weights import load_backbone
from benchmark.core.errors import UserError
from benchmark.core.files import file_hash, write_whole
from benchmark.core.plain import as_plain
from benchmark.core.provenance import commit, versions
from benchmark.data.findings import printable
from benchmark.data.handover import lost_loader_told
from benchmark.data.image_set import ImageSet
from benchmark.engine.checkpoint import locked
from benchmark.engine.progress import Display
from benchmark.engine.train import Machine
from benchmark.runs.run import Run
from benchmark.transfers.contract import Context
from benchmark.transfers.features import extract, output_tap
from benchmark.transfers.preprocessing import centre_crop

SUFFIXES = (".npz", ".parquet")
PARTS = ("train", "val")


@dataclass(frozen=True)
class ImageFeatures:
    """values: (N, D) float32, the backbone's output, averaged over space where it is a map, on the protocols' centre
    crop. files: their images, relative to images.root. about: what they came from, JSON-ready."""

    images: ImageSet
    values: np.ndarray
    about: Mapping[str, Any]

    @property
    def files(self) -> list[str]:
        return [printable(file) for file in self.images.files]

    @property
    def are_sorted(self) -> bool:
        """Whether there are several folders, which may stand for classes."""
        return len({*self.folders}) > 1

    @property
    def folders(self) -> list[str]:
        """The folder of each file, in train/ or val/ without that."""
        return [_folder(file) for file in self.files]


def check_suffix(path: Path) -> None:
    """Raises UserError for a file of another kind: before the work, not after it."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"--to {path}: the name must end in {' or '.join(SUFFIXES)}, which says what is written")


def features_of(run: Run, images: ImageSet, machine: Machine) -> ImageFeatures:
    """Of every image, in order. What was done is kept in the run's folder until it is whole, so that the same call goes
    on there."""
    kept = run.folder / "features"
    title = f"{run.name} seed {run.seed}  features of {images.name}"
    with lost_loader_told(), locked(run.folder), Display(title, len(images)) as display:
        backbone, _ = load_backbone(run.backbone)
        without_groups(backbone)
        context = Context(
            data_root=run.data_root,
            scale=run.scale,
            seed=run.seed,
            workspace=kept,
            device=machine.device,
            workers=machine.workers,
            report=lambda what, done, total, figures: display.update(done, figures),
        )
        tap = output_tap(backbone)
        found = extract(backbone, images, centre_crop(backbone.input.size), (tap,), context)[tap.name]
        values = np.array(found)  # out of the files, which go
        shutil.rmtree(kept, ignore_errors=True)
    about = {
        "backbone": run.name,
        "backbone_hash": file_hash(run.backbone),
        "input": as_plain(backbone.input),
        "images": str(images.root),
        "fingerprint": images.fingerprint(),
        "commit": commit(),
        "versions": versions(),
    }
    return ImageFeatures(images, values, about)


def write_features(features: ImageFeatures, path: Path) -> None:
    """As .npz: files (N,), folders (N,), features (N, D) and about, a text of JSON. As .parquet: columns file, folder
    and features, a list of numbers each; about is in the schema's metadata under "sslbench"."""
    about = json.dumps(features.about, sort_keys=True)
    content = io.BytesIO()
    if path.suffix == ".npz":
        files, folders = np.array(features.files), np.array(features.folders)
        np.savez(content, files=files, folders=folders, features=features.values, about=np.array(about))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        width = features.values.shape[1]
        rows = pa.FixedSizeListArray.from_arrays(pa.array(features.values.ravel()), width)
        table = pa.table({"file": features.files, "folder": features.folders, "features": rows})
        pq.write_table(table.replace_schema_metadata({"sslbench": about}), content)
    write_whole(path, content.getbuffer())


def _folder(file: str) -> str:
    parts = PurePosixPath(file).parts[:-1]
    inner = parts[1:] if len(parts) > 1 and parts[0] in PARTS else parts
    return "/".join(inner) or "."
