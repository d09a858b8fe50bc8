"""What a test does to annotations on disk, so that they say something else."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat, savemat


def move_box(path: Path) -> None:
    """The first object's left edge, by a pixel; an image that shows nothing gets an object."""
    text, moved = re.subn(r"(?<=<xmin>)\d+", lambda x: str(int(x[0]) + 1), path.read_text(), count=1)
    if not moved:
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        text = text.replace("</annotation>", f"<object><name>dog</name>{box}</object></annotation>")
    path.write_text(text)


def change_mask(path: Path) -> None:
    """One pixel; the file may stay as large as it was."""
    with Image.open(path) as image:
        values, palette = np.array(image), image.getpalette()
    values[0, 0] = 1 + values[0, 0] % 20
    mask = Image.fromarray(values)
    mask.putpalette(palette)
    mask.save(path)


def change_mat(path: Path) -> None:
    """One pixel of an SBD mask; of any other file, what it holds breaks off."""
    content = loadmat(path)
    if "GTcls" in content:
        mask = content["GTcls"][0, 0]["Segmentation"]
        mask[0, 0] = 1 + mask[0, 0] % 20
        savemat(path, {"GTcls": {"Segmentation": mask, "CategoriesPresent": np.unique(mask)}})
    else:
        path.write_bytes(path.read_bytes()[:-200])
