"""Opening images: every oddity of the real datasets against values worked out by hand, and every broken file."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from handmade import image
from PIL import Image, ImageFile

from benchmark.core.errors import UserError
from benchmark.data import images
from benchmark.data.images import UnreadableImage, open_rgb


def pixels(root: Path, name: str) -> np.ndarray:
    opened = open_rgb(root, name)
    assert opened.mode == "RGB"
    return np.asarray(opened)


def test_cmyk_jpeg_is_converted(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (10, 200, 30, 60)).save(tmp_path / "a.JPEG", quality=100)
    # (255 - ink)(255 - key) / 255 for each ink
    np.testing.assert_allclose(pixels(tmp_path, "a.JPEG")[8, 8], (187.35, 42.06, 172.06), atol=2)


def test_grey_and_bilevel(tmp_path: Path) -> None:
    Image.new("L", (16, 16), 77).save(tmp_path / "grey.JPEG")
    Image.new("1", (4, 4), 1).save(tmp_path / "bit.png")
    assert (pixels(tmp_path, "grey.JPEG") == 77).all()
    assert (pixels(tmp_path, "bit.png") == 255).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257, 256 * 128, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    # v · 255 / 65535 = v / 257: 0.498 → 0, 0.502 → 1, 127.502 → 128
    assert pixels(tmp_path, f"a.{suffix}")[0].tolist() == [[v] * 3 for v in (0, 0, 1, 1, 128, 255)]


def test_big_endian_16_bit(tmp_path: Path) -> None:
    Image.frombytes("I;16B", (2, 1), bytes([0x80, 0x00, 0xFF, 0xFF])).save(tmp_path / "a.tif")
    assert pixels(tmp_path, "a.tif")[0, :, 0].tolist() == [128, 255]


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "a.png")
    Image.new("LA", (4, 4), (99, 0)).save(tmp_path / "b.png")
    assert (pixels(tmp_path, "a.png") == (10, 20, 30)).all()
    assert (pixels(tmp_path, "b.png") == 99).all()


@pytest.mark.filterwarnings("error")
def test_palette_with_transparency(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 11, 22, 33])
    picture.save(tmp_path / "a.png", transparency=bytes([255, 0]))
    assert (pixels(tmp_path, "a.png") == (11, 22, 33)).all()


def test_png_named_jpeg(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "n02105855_2933.JPEG", "PNG")
    assert (pixels(tmp_path, "n02105855_2933.JPEG") == (1, 2, 3)).all()


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees to view"
    Image.new("RGB", (12, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert open_rgb(tmp_path, "a.jpg").size == (12, 8)


def test_corrupt_exif_does_not_matter(tmp_path: Path) -> None:
    Image.new("RGB", (12, 8)).save(tmp_path / "a.jpg", exif=b"Exif\0\0nonsense")
    assert open_rgb(tmp_path, "a.jpg").size == (12, 8)


def broken_files(root: Path) -> dict[str, str]:
    """name -> a word of the message."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for name, form in (("cut.jpg", "JPEG"), ("cut.png", "PNG")):
        buffer = io.BytesIO()
        noise.save(buffer, form)
        (root / name).write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    (root / "empty.jpg").write_bytes(b"")
    (root / "page.jpg").write_text("<html>404 not found</html>")
    (root / "head.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (root / "folder.jpg").mkdir()
    Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)).save(root / "float.tif")
    Image.fromarray(np.full((4, 4), 70000, dtype=np.int32)).save(root / "deep.tif")
    return {
        "cut.jpg": "truncated",
        "cut.png": "truncated",
        "empty.jpg": "0 bytes",
        "page.jpg": "known image format",
        "head.jpg": "",
        "folder.jpg": "it is a folder",
        "gone.jpg": "no such file",
        "float.tif": "floating-point",
        "deep.tif": "16 bits",
    }


def test_broken_files_are_named(tmp_path: Path) -> None:
    for name, word in broken_files(tmp_path).items():
        with pytest.raises(UnreadableImage) as caught:
            open_rgb(tmp_path, name)
        message = str(caught.value)
        assert str(tmp_path / name) in message
        assert word in message
        assert "sslbench doctor --data DIR --deep" in message
        assert "BytesIO" not in message


def test_error_survives_process_borders(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage) as caught:
        open_rgb(tmp_path, "gone.jpg")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.reason) == (str(caught.value), "there is no such file")


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "a.jpg", size=(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadableImage, match="bomb"):
        open_rgb(tmp_path, "a.jpg")


def test_forbidden_file_is_not_called_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(images, "open", refuse, raising=False)
    with pytest.raises(UserError, match=r"a\.jpg: cannot be read: Permission denied") as caught:
        open_rgb(tmp_path, "a.jpg")
    assert not isinstance(caught.value, UnreadableImage)


def test_truncated_images_are_never_filled_up() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_eps_is_never_opened(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", "EPS")  # Pillow would start Ghostscript
    with pytest.raises(UnreadableImage, match="known image format"):
        open_rgb(tmp_path, "a.jpg")


def test_zip_members(tmp_path: Path) -> None:
    jpeg = image(tmp_path / "a.jpg", (0, 255, 0), (64, 64)).read_bytes()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("1.jpg", jpeg)
        archive.writestr("2.jpg", jpeg[:300])
        archive.writestr("3.jpg", b"")
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    assert (pixels(tmp_path, "x.zip/1.jpg") == pixels(tmp_path, "a.jpg")).all()
    for name in ("x.zip/2.jpg", "x.zip/3.jpg", "x.zip/4.jpg", "bad.zip/1.jpg", "none.zip/1.jpg"):
        with pytest.raises(UnreadableImage, match=r"\.zip"):
            open_rgb(tmp_path, name)


def test_forked_process_opens_its_own_zip(tmp_path: Path) -> None:
    """A shared file offset would mix the reads of two workers."""
    image(tmp_path / "a.jpg")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "a.jpg", "1.jpg")
    mine = images.open_zip(tmp_path / "x.zip")
    assert images.open_zip(tmp_path / "x.zip") is mine
    assert images._open_zip(tmp_path / "x.zip", os.getpid() + 1) is not mine


def test_sizes(tmp_path: Path) -> None:
    size = image(tmp_path / "a.jpg").stat().st_size
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("1.jpg", b"abc")
    assert images.file_size(tmp_path, "a.jpg") == size
    assert images.file_size(tmp_path, "x.zip/1.jpg") == (tmp_path / "x.zip").stat().st_size
    assert images.file_size(tmp_path, "gone.jpg") == -1


def test_reading_takes_the_memory_of_the_file(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    images.read_bytes(tmp_path, "a.jpg")
    tracemalloc.start()
    images.read_bytes(tmp_path, "a.jpg")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_file_too_large_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "a.jpg", "wb") as stream:
        stream.truncate(images.MAX_BYTES + 1)  # takes no room on the disk
    with pytest.raises(UnreadableImage, match="larger than 1 GiB"):
        open_rgb(tmp_path, "a.jpg")
