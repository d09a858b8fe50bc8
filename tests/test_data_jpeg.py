"""Plain JPEGs are decoded without Pillow: to its pixels, and nothing that it would refuse or convert."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, features

from benchmark.data.images import to_rgb
from benchmark.data.jpeg import decode_plain_jpeg

SIZES = [(64, 64), (33, 17), (1, 1), (7, 40), (250, 188)]
KINDS = {
    **{f"subsampling {s}, quality {q}": {"subsampling": s, "quality": q} for s in (0, 1, 2) for q in (30, 75, 100)},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 1},
    "stored as RGB": {"keep_rgb": True},
    "turned by EXIF": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
}


def drawn(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Blots with a little noise, so that neighbouring pixels are alike as in photos."""
    rng = np.random.default_rng(0)
    blots = Image.fromarray(rng.integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8))
    smooth = np.asarray(blots.resize(size, Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((smooth + rng.integers(-9, 9, smooth.shape)).clip(0, 255).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, form: str = "JPEG", **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return buffer.getvalue()


def equal_to_pillows(data: bytes) -> bool:
    ours, theirs = decode_plain_jpeg(data), to_rgb(Image.open(io.BytesIO(data)))
    assert ours is not None
    return (ours.mode, ours.size, ours.tobytes()) == (theirs.mode, theirs.size, theirs.tobytes())


@pytest.mark.skipif(not features.check_feature("libjpeg_turbo"), reason="this Pillow decodes with another library")
@pytest.mark.parametrize("how", KINDS.values(), ids=KINDS)
def test_pixels_are_pillows(how: dict[str, object]):
    assert all(equal_to_pillows(encoded(drawn(size), **how)) for size in SIZES)
    assert equal_to_pillows(encoded(drawn((64, 48), "L"), quality=how.get("quality", 75)))


def test_what_pillow_converts_is_left_to_it():
    assert decode_plain_jpeg(encoded(drawn((64, 48), "CMYK"))) is None
    assert decode_plain_jpeg(encoded(drawn((64, 48)), "PNG")) is None


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_a_file_cut_off_anywhere_is_left_to_pillow(how: dict[str, object]):
    """Which refuses it: half a picture above grey would be trained on unnoticed."""
    data = encoded(drawn((40, 24)), **how)
    assert decode_plain_jpeg(data) is not None
    assert all(decode_plain_jpeg(data[:length]) is None for length in range(len(data)))


def test_damaged_data_are_left_to_pillow():
    data = bytearray(encoded(drawn((64, 64))))
    middle = len(data) * 2 // 3
    data[middle : middle + 2] = b"\xff\xd9"  # says that the picture ends here
    assert decode_plain_jpeg(bytes(data)) is None


def test_a_picture_too_large_is_left_to_pillow(monkeypatch: pytest.MonkeyPatch):
    data = encoded(drawn((64, 64)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64)
    assert decode_plain_jpeg(data) is not None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    assert decode_plain_jpeg(data) is None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # Pillow's word for no limit
    assert decode_plain_jpeg(data) is not None
