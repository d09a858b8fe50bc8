"""What every test image contributes to a score, so that two networks can be compared image by image.

One value an image, whose mean over the images is the score: right or wrong where the score is a share of images, and
else the image's influence on it (benchmark.transfers.influence). Kept in a record's detail as text, a bit or four
bytes an image: 50,000 images take 8.3 kB, or 267 kB. It is not compressed, for other versions of a library compress to
other bytes, and the same run gives the same record. Imports no torch.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmark.core.errors import UserError
from benchmark.records.record import Record

KEY, IMAGES = "per_image", "images"  # in a record's detail, and there the number of images
BITS, NUMBERS = "bits ", "float32 "  # what the text begins with


def kept_per_image(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """A part of a record's detail. values: metric or stage -> (N,), bool for right or wrong, else floating point in the
    metric's unit. Raises ValueError if they are not all of the same images."""
    (images,) = {len(each) for each in values.values()}
    return {KEY: {IMAGES: images} | {name: _as_text(each) for name, each in values.items()}}


def per_image(record: Record, name: str) -> np.ndarray | None:
    """(N,) float64, in the metric's unit, of a metric or stage; None where the record does not hold it. The metric of a
    protocol that chooses a stage is that stage's. Raises UserError for text that nothing here has written."""
    held = record.detail.get(KEY)
    if not isinstance(held, dict):
        return None
    selected = record.detail.get("selected")
    chosen = selected.get("stage") if isinstance(selected, dict) and name in record.metrics else None
    text, images = held.get(name, held.get(chosen)), held.get(IMAGES)
    if text is None:
        return None
    try:
        return _as_values(text, images)
    except (AttributeError, TypeError, ValueError, binascii.Error) as error:
        raise UserError(f"{record.path}: what its detail holds per image under {name!r} is broken ({error})") from error


def _as_text(values: np.ndarray) -> str:
    if values.dtype == bool:
        return BITS + base64.b64encode(np.packbits(values).tobytes()).decode()
    return NUMBERS + base64.b64encode(values.astype("<f4").tobytes()).decode()


def _as_values(text: Any, images: Any) -> np.ndarray:
    content = base64.b64decode(text.partition(" ")[2], validate=True)
    if text.startswith(BITS) and len(content) == (images + 7) // 8:
        return 100.0 * np.unpackbits(np.frombuffer(content, np.uint8), count=images)
    if text.startswith(NUMBERS) and len(content) == 4 * images:
        return np.frombuffer(content, "<f4").astype(np.float64)
    raise ValueError(f"it is not of {images} images")
