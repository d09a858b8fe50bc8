"""The development kit of ILSVRC2012, which has the labels of a flat val/.

It numbers the classes from 1 to 1000 in an order of its own, so its ILSVRC2012_ID is only ever a key into meta.mat.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmark.data.entries import read_lines
from benchmark.data.findings import bad

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
DEVKIT = Path("ILSVRC2012_devkit_t12/data")


def devkit_places(data_root: Path, home: str) -> list[Path]:
    """Where the devkit's data folder may be: inside `home`, which is imagenet, or beside it."""
    return [data_root / home / DEVKIT, data_root / DEVKIT]


def devkit(data_root: Path, home: str) -> Path:
    """The devkit's data folder; UserError if there is none."""
    for place in devkit_places(data_root, home):
        if place.is_dir():
            return place
    raise bad(
        data_root / home / DEVKIT,
        "a flat val/ needs the devkit for its labels",
        "Unpack ILSVRC2012_devkit_t12.tar.gz there.",
    )


def val_wnids(folder: Path) -> list[str]:
    """The WNID of validation image 1, 2, …: the ground truth's ids looked up in meta.mat. `folder`: the devkit's."""
    wnid_of = _wnid_of_id(folder / "meta.mat")
    path = folder / GROUND_TRUTH
    wnids = []
    for number, line in enumerate(read_lines(path, "Unpack ILSVRC2012_devkit_t12.tar.gz again."), start=1):
        if not line.strip().isdecimal() or int(line) not in wnid_of:
            raise bad(f"{path}, line {number}", f"meta.mat has no ILSVRC2012_ID {line!r}", "Unpack the devkit again.")
        wnids.append(wnid_of[int(line)])
    return wnids


def _wnid_of_id(path: Path) -> dict[int, str]:
    """ILSVRC2012_ID -> WNID of the actual classes; meta.mat lists their parents in the hierarchy too."""
    from scipy.io import loadmat  # slow to import, and only a flat val needs it

    try:
        synsets = loadmat(path, squeeze_me=True)["synsets"]
        leaves = [s for s in np.atleast_1d(synsets) if int(s["num_children"]) == 0]
        return {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in leaves}
    except Exception as error:  # loadmat can raise nearly anything on a broken file
        raise bad(path, f"cannot be read as the devkit's meta.mat ({error})", "Unpack the devkit again.") from error
