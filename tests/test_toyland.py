"""Toyland: the same bytes every time, in the real layouts. What gives its classes away: test_toyland_shortcuts.py."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from defusedxml import ElementTree
from PIL import Image
from pycocotools.coco import COCO
from scipy.io import loadmat

from benchmark.core.errors import UserError
from benchmark.data.datasets import DATASETS, open_dataset
from benchmark.data.masks import train_aug, voc_masks
from benchmark.toyland import WORLD_DATASETS, build_world, contact_sheet, world
from benchmark.toyland.canvas import MAX_SIDE
from benchmark.toyland.catalogue import OBJECTS, VOC_OBJECTS
from benchmark.toyland.layouts import LAYOUTS, coco2017, voc
from benchmark.toyland.layouts.imagenet import DEVKIT, WNIDS
from benchmark.toyland.layouts.inat2018 import tail_counts
from benchmark.toyland.places import PLACES, place
from benchmark.toyland.render import crowd, single
from benchmark.toyland.rng import generator
from benchmark.toyland.species import SPECIES


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"), "smoke", progress=False)


def contents(root: Path) -> dict[str, bytes]:
    """Path → bytes of every file of the datasets."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".toyland"))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def names_below(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


# ---- the same bytes every time


def test_bytes_do_not_depend_on_the_number_of_workers(smoke, tmp_path, monkeypatch):
    monkeypatch.setattr(world, "_WORTH_WORKERS", 0)
    monkeypatch.setattr(world, "_CHUNK", 7)
    build_world(tmp_path, "smoke", workers=2, progress=False)
    assert contents(tmp_path) == contents(smoke)


def test_another_seed_draws_other_pictures(smoke, tmp_path):
    build_world(tmp_path, "smoke", seed=1, datasets=["voc2007", "imagenet"], progress=False)
    first = world.read_manifest(smoke)
    for name, entry in world.read_manifest(tmp_path).items():
        assert entry["fingerprint"] != first[name]["fingerprint"]
    before, after = contents(smoke), contents(tmp_path)
    changed = [path for path in after if path.endswith(".JPEG") and after[path] != before[path]]
    assert len(changed) == 64


def test_no_two_pictures_are_the_same(smoke):
    images = [data for path, data in contents(smoke).items() if path.lower().endswith((".jpeg", ".jpg"))]
    assert len(set(images)) == len(images)


def test_splits_draw_from_different_generators():
    draws = {generator(0, dataset, split, 5).random() for dataset in WORLD_DATASETS for split in ("train", "val")}
    assert len(draws) == 2 * len(WORLD_DATASETS)


# ---- reuse, interruption, and other people's data


def test_a_finished_world_is_reused_at_once(smoke):
    before = {path: path.stat().st_mtime_ns for path in smoke.rglob("*")}
    start = time.perf_counter()
    build_world(smoke, "smoke", progress=False)
    assert time.perf_counter() - start < 0.1
    assert {path: path.stat().st_mtime_ns for path in smoke.rglob("*")} == before


def test_only_what_is_missing_is_drawn(tmp_path):
    build_world(tmp_path, "smoke", datasets=["inat2018"], progress=False)
    kept = (tmp_path / "inat2018" / "train2018.json").stat().st_mtime_ns
    build_world(tmp_path, "smoke", datasets=["inat2018", "yfcc100m"], progress=False)
    assert (tmp_path / "inat2018" / "train2018.json").stat().st_mtime_ns == kept
    assert sorted(world.read_manifest(tmp_path)) == ["inat2018", "yfcc100m"]


def test_another_seed_or_version_replaces_the_old_world(tmp_path, monkeypatch):
    for seed, version in ((0, 1), (1, 1), (1, 2)):
        monkeypatch.setattr(world, "VERSION", version)
        build_world(tmp_path, "smoke", seed=seed, datasets=["yfcc100m"], progress=False)
        entry = world.read_manifest(tmp_path)["yfcc100m"]
        assert (entry["seed"], entry["version"], entry["images"]) == (seed, version, 30)
        assert len(list((tmp_path / "yfcc100m").rglob("*.jpg"))) == 30  # nothing of the old one is left


@pytest.mark.parametrize("name", WORLD_DATASETS)
def test_data_that_toyland_did_not_draw_is_never_touched(name, tmp_path):
    for folder in LAYOUTS[name].folders:
        mine = tmp_path / folder / "mine.txt"
        mine.parent.mkdir(parents=True)
        mine.write_text("keep me")
    with pytest.raises(UserError, match=str(tmp_path / LAYOUTS[name].folders[0])):
        build_world(tmp_path, "smoke", datasets=[name], progress=False)
    assert all((tmp_path / folder / "mine.txt").read_text() == "keep me" for folder in LAYOUTS[name].folders)


def test_unknown_dataset(tmp_path):
    with pytest.raises(UserError, match=r"no dataset 'imagnet'; it has imagenet"):
        build_world(tmp_path, "smoke", datasets=["imagnet"])


def test_damaged_manifest(tmp_path):
    (tmp_path / world.MANIFEST).write_text("{")
    with pytest.raises(UserError, match=r"toyland\.json is damaged"):
        build_world(tmp_path, "smoke", progress=False)


def test_a_failing_build_leaves_nothing_and_a_full_disk_is_told(tmp_path, monkeypatch):
    layout = LAYOUTS["voc2012"]

    def draw(root: Path, picture, seed: int):
        if picture.index == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(root / picture.path))
        return layout.draw(root, picture, seed)

    monkeypatch.setitem(LAYOUTS, "voc2012", replace(layout, draw=draw))
    with pytest.raises(UserError, match="No space left on device"):
        build_world(tmp_path, "smoke", datasets=["voc2007", "voc2012"], progress=False)
    assert sorted(world.read_manifest(tmp_path)) == ["voc2007"]
    assert names_below(tmp_path / "VOCdevkit") == ["VOC2007"]
    monkeypatch.undo()
    build_world(tmp_path, "smoke", datasets=["voc2012"], progress=False)
    assert names_below(tmp_path) == [".toyland-lock", "VOCdevkit", "benchmark_RELEASE", "toyland.json"]


_BUILD = "import sys; from benchmark.toyland import build_world as b; b(sys.argv[1], 'desk', datasets=['imagenet'])"


def test_a_killed_build_leaves_nothing_half_written_and_no_workers(tmp_path, smoke):
    process = subprocess.Popen([sys.executable, "-c", _BUILD, str(tmp_path)], stderr=subprocess.DEVNULL)
    wait_for(lambda: any(tmp_path.rglob("*.JPEG")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "imagenet").exists()
    assert not (tmp_path / world.MANIFEST).exists()
    wait_for(lambda: nothing_new_in(tmp_path))
    build_world(tmp_path, "smoke", datasets=["imagenet"], progress=False)
    assert names_below(tmp_path) == [".toyland-lock", "imagenet", "toyland.json"]
    assert world.read_manifest(tmp_path)["imagenet"] == world.read_manifest(smoke)["imagenet"]


def wait_for(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def nothing_new_in(root: Path) -> bool:
    """Whether all workers have stopped."""
    before = sum(1 for _ in root.rglob("*"))
    time.sleep(0.3)
    return sum(1 for _ in root.rglob("*")) == before


def test_two_builds_at_once_take_turns(tmp_path, smoke):
    jobs = [threading.Thread(target=build_world, args=(tmp_path, "smoke", 0, ["imagenet"], 1, False)) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert world.read_manifest(tmp_path)["imagenet"] == world.read_manifest(smoke)["imagenet"]


def test_toyland_does_not_import_torch():
    """Its workers start in a tenth of the time without."""
    check = "import sys, benchmark.toyland; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


# ---- the layouts


@pytest.mark.parametrize("scale", ["desk", "smoke"])
@pytest.mark.parametrize("name", WORLD_DATASETS)
def test_every_picture_has_a_place_of_its_own(name, scale):
    pictures = LAYOUTS[name].pictures(scale, 0)
    assert len({picture.path for picture in pictures}) == len(pictures)
    assert len({(picture.split, picture.index) for picture in pictures}) == len(pictures)
    assert all(picture.path.startswith(LAYOUTS[name].folders) for picture in pictures)


@pytest.mark.parametrize("name", WORLD_DATASETS)
def test_the_readers_of_the_real_layouts_read_it(name, smoke):
    pictures = LAYOUTS[name].pictures("smoke", 0)
    assert world.read_manifest(smoke)[name]["images"] == len(pictures)
    sizes = Counter(picture.split for picture in pictures)
    for split in DATASETS[name].SPLITS:
        images = open_dataset(smoke, name, split)
        parts = ("train", "val") if split == "trainval" else (split,)
        assert len(images) == sum(sizes[part] for part in parts)
        assert all(np.asarray(images.open(index)).std() > 5 for index in range(len(images)))


def test_imagenet_devkit(smoke):
    """The ids of the ground truth lead, through meta.mat, to what each validation picture shows."""
    synsets = loadmat(smoke / DEVKIT / "meta.mat", squeeze_me=True)["synsets"]
    fields = {"ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children"}
    assert set(synsets.dtype.names) == fields | {"wordnet_height", "num_train_images"}
    leaves = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets if row["num_children"] == 0}
    assert sorted(leaves) == list(range(1, len(leaves) + 1))
    assert min(int(row["ILSVRC2012_ID"]) for row in synsets if row["num_children"] > 0) > max(leaves)
    assert [leaves[number] for number in sorted(leaves)] != sorted(leaves.values())
    truth = (smoke / DEVKIT / "ILSVRC2012_validation_ground_truth.txt").read_text().split()
    val = [picture for picture in LAYOUTS["imagenet"].pictures("smoke", 0) if picture.split == "val"]
    assert [leaves[int(number)] for number in truth] == [WNIDS[picture.shows] for picture in val]
    assert names_below(smoke / "imagenet" / "val") == [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, len(val) + 1)]


def test_every_object_has_a_wnid_of_its_own():
    assert len(set(WNIDS.values())) == len(WNIDS) == 20
    assert set(WNIDS) <= set(OBJECTS)


def test_tiny_imagenet_boxes(smoke):
    root = smoke / "tiny-imagenet-200"
    wnids = (root / "wnids.txt").read_text().split()
    assert sorted(wnids) == names_below(root / "train")
    assert set(wnids) < {line.split("\t")[0] for line in (root / "words.txt").read_text().splitlines()}
    rows = [line.split("\t") for line in (root / "val" / "val_annotations.txt").read_text().splitlines()]
    assert {row[1] for row in rows} == set(wnids)
    boxes = [row[2:] for row in rows]
    for wnid in wnids:
        listed = [row.split("\t") for row in (root / "train" / wnid / f"{wnid}_boxes.txt").read_text().splitlines()]
        assert sorted(row[0] for row in listed) == names_below(root / "train" / wnid / "images")
        boxes += [row[1:] for row in listed]
    assert all(0 <= int(x0) < int(x1) < 64 and 0 <= int(y0) < int(y1) < 64 for x0, y0, x1, y1 in boxes)


@pytest.mark.parametrize("year", [2007, 2012])
def test_voc_boxes_enclose_masks_and_borders_are_void(year, smoke):
    root = smoke / "VOCdevkit" / f"VOC{year}"
    masks = sorted((root / "SegmentationObject").glob("*.png"))
    assert [path.stem for path in masks] == sorted(
        name for split in voc.SIZES[year]["smoke"] for name in listed(root, "Segmentation", split)
    )
    for path in masks:
        entries = ElementTree.parse(root / "Annotations" / f"{path.stem}.xml").findall("object")
        by_object, image = np.asarray(Image.open(path)), Image.open(root / "SegmentationClass" / path.name)
        by_class = np.asarray(image)
        assert image.mode == "P"
        assert image.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
        assert Image.open(root / "JPEGImages" / f"{path.stem}.jpg").size == image.size
        assert ((by_class == 255) == (by_object == 255)).all()
        assert set(np.unique(by_object)) <= {0, 255, *range(1, len(entries) + 1)}
        inner = by_object[1:, :] != by_object[:-1, :]
        touching = inner & (by_object[1:, :] != 255) & (by_object[:-1, :] != 255)
        assert not touching.any()  # void lies between any two
        for number, entry in enumerate(entries, start=1):
            ys, xs = np.nonzero(by_object == number)
            if entry.findtext("difficult") == "1":
                assert not len(ys)
            elif len(ys):
                xmin, ymin, xmax, ymax = (int(entry.findtext(f"bndbox/{tag}")) for tag in voc_tags())
                assert 1 <= xmin <= xs.min() + 1 <= xs.max() + 1 <= xmax <= image.width
                assert 1 <= ymin <= ys.min() + 1 <= ys.max() + 1 <= ymax <= image.height
                assert {VOC_OBJECTS[code - 1] for code in np.unique(by_class[ys, xs])} == {entry.findtext("name")}


def test_sbd_masks_are_those_of_voc_where_voc_is_sure(smoke):
    own, aug = voc_masks(smoke, "2012", "train"), train_aug(smoke)
    assert len(aug) == len(own) + 40  # two thirds of train and of val have no mask of VOC's
    root = smoke / "VOCdevkit/VOC2012"
    for name in listed(root, "Segmentation", "trainval"):
        by_voc = np.asarray(Image.open(root / "SegmentationClass" / f"{name}.png"))
        by_sbd = loadmat(smoke / f"benchmark_RELEASE/dataset/cls/{name}.mat")["GTcls"][0, 0]["Segmentation"]
        sure = by_voc != voc.VOID
        assert sure.mean() > 0.5
        np.testing.assert_array_equal(by_sbd[sure], by_voc[sure])


def voc_tags() -> tuple[str, ...]:
    return ("xmin", "ymin", "xmax", "ymax")


def listed(root: Path, kind: str, split: str) -> list[str]:
    return (root / "ImageSets" / kind / f"{split}.txt").read_text().split()


@pytest.mark.parametrize("year", [2007, 2012])
def test_voc_presence_codes_follow_the_annotations(year, smoke):
    root = smoke / "VOCdevkit" / f"VOC{year}"
    codes = Counter()
    for split in (*voc.SIZES[year]["smoke"], "trainval"):
        names = listed(root, "Main", split)
        for shown in VOC_OBJECTS:
            rows = [
                line.split() for line in (root / "ImageSets/Main" / f"{shown}_{split}.txt").read_text().splitlines()
            ]
            assert [name for name, _ in rows] == names
            assert split in ("train", "val") or any(code != "-1" for _, code in rows)
            for name, code in rows:
                entries = ElementTree.parse(root / "Annotations" / f"{name}.xml").findall("object")
                difficult = [entry.findtext("difficult") for entry in entries if entry.findtext("name") == shown]
                assert int(code) == (-1 if not difficult else int("0" in difficult))
                codes[code] += 1
    assert codes["1"] > 0
    assert codes["-1"] > codes["1"]


def test_voc_marks_hidden_objects_difficult():
    """Enough of them for the protocols' special cases to matter, too few to eat the data."""
    instances = [
        instance
        for index in range(160)
        for instance in crowd(generator(0, "crowd", index), VOC_OBJECTS[index % 20], 128, 96)[1]
    ]
    assert 0.03 < np.mean([voc.difficult(instance) for instance in instances]) < 0.2
    assert 1.3 < len(instances) / 160 < 1.7
    assert {instance.name for instance in instances} == set(VOC_OBJECTS)
    assert all(instance.mask.any() and 0 < instance.visible <= 1 for instance in instances)


def test_places205_lists(smoke):
    images = smoke / "places205/data/vision/torralba/deeplearning/images256"
    for split in ("train", "val"):
        with open(smoke / "places205" / "trainvalsplit_places205" / f"{split}_places205.csv") as file:
            rows = list(csv.reader(file, delimiter=" "))
        assert {int(label) for _, label in rows} == set(range(10))
        assert all((images / path).is_file() for path, _ in rows)
        assert {len(path.split("/")) for path, _ in rows} == {3, 4}  # some classes lie a folder deeper
        assert all(path.startswith(list(PLACES)[int(label)]) for path, label in rows)


def test_inat2018_lists(smoke):
    for split, count in (("train", 28), ("val", 12)):
        listing = json.loads((smoke / "inat2018" / f"{split}2018.json").read_text())
        categories = {entry["id"]: entry for entry in listing["categories"]}
        image_of = {entry["id"]: entry for entry in listing["images"]}
        assert len(image_of) == len(listing["annotations"]) == count
        for annotation in listing["annotations"]:
            image, category = image_of[annotation["image_id"]], categories[annotation["category_id"]]
            assert image["file_name"].split("/")[:3] == [
                "train_val2018",
                category["supercategory"],
                str(category["id"]),
            ]
            assert Image.open(smoke / "inat2018" / image["file_name"]).size == (image["width"], image["height"])


def test_inat2018_has_a_long_tail():
    counts = tail_counts(800, len(SPECIES))
    assert sum(counts) == 800
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 8 * counts[-1] > 0


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_annotations_are_what_pycocotools_makes_of_them(split, smoke):
    """Its masks, from polygons and run lengths, have the stated areas and fill the stated boxes."""
    path = smoke / "coco/annotations" / f"instances_{split}2017.json"
    with contextlib.redirect_stdout(io.StringIO()):
        listing = COCO(str(path))
    for entry in listing.anns.values():
        mask, (x, y, width, height) = listing.annToMask(entry), entry["bbox"]
        ys, xs = np.nonzero(mask)
        assert mask.sum() == entry["area"]
        assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (x, y, x + width, y + height)
    for entry in listing.imgs.values():
        with Image.open(smoke / "coco" / f"{split}2017" / entry["file_name"]) as image:
            assert image.size == (entry["width"], entry["height"])


def test_coco_has_what_readers_stumble_over(smoke):
    ids = []
    for split in ("train", "val"):
        listing = json.loads((smoke / "coco/annotations" / f"instances_{split}2017.json").read_text())
        shown = Counter(entry["image_id"] for entry in listing["annotations"])
        assert max(shown.values()) >= 4
        assert len(shown) < len(listing["images"])  # some show nothing
        crowds = [entry for entry in listing["annotations"] if entry["iscrowd"]]
        assert 0 < len(crowds) < len(listing["annotations"]) / 4
        for entries, key in ((listing["images"], "id"), (listing["annotations"], "image_id")):
            assert [entry[key] for entry in entries] != sorted(entry[key] for entry in entries)
        numbers = [entry["id"] for entry in listing["categories"]]
        assert (numbers[0], numbers[-1], len(numbers)) == (1, 72, 20)
        assert {entry["category_id"] for entry in listing["annotations"]} <= {*numbers}
        ids += [entry["id"] for entry in listing["images"]]
    assert len(set(ids)) == len(ids)


def test_run_lengths_begin_with_nought():
    mask = np.array([[1, 0], [1, 0], [0, 1]], dtype=bool)
    assert coco2017.run_lengths(mask) == {"size": [3, 2], "counts": [0, 2, 3, 1]}
    assert coco2017.run_lengths(~mask)["counts"] == [2, 3, 1]


def test_yfcc_zips_hold_photos_of_the_tree(smoke):
    files = (smoke / "yfcc100m" / "files.txt").read_text().split()
    photos = {(smoke / "yfcc100m" / file).read_bytes() for file in files}
    zips = sorted((smoke / "yfcc100m_zips").rglob("*.zip"))
    assert [path.relative_to(smoke).as_posix() for path in zips] == [f"yfcc100m_zips/00/00{i}.zip" for i in range(2)]
    for path in zips:
        with zipfile.ZipFile(path) as archive:
            assert archive.namelist() == ["000.jpg", "001.jpg", "002.jpg"]
            assert all(archive.read(name) in photos for name in archive.namelist())


@pytest.mark.parametrize("name", WORLD_DATASETS)
def test_contact_sheet(name, smoke, tmp_path):
    sheet = contact_sheet(smoke, name, tmp_path / "deeper" / f"{name}.png")
    assert sheet.stat().st_size <= 200_000
    assert np.asarray(Image.open(sheet).convert("RGB")).std() > 10


def test_contact_sheet_of_nothing(tmp_path):
    with pytest.raises(UserError, match="sslbench world"):
        contact_sheet(tmp_path, "imagenet", tmp_path / "sheet.png")


# ---- the pictures


@pytest.mark.parametrize(("width", "height"), [(112, 80), (MAX_SIDE, MAX_SIDE)])
def test_every_object_place_and_species_can_be_drawn_up_to_the_largest_canvas(width, height):
    for number, shape in enumerate([*OBJECTS.values(), *(shape for _, shape in SPECIES)]):
        _, instance = single(generator(0, "any", number), shape, width, height)
        assert instance.mask.sum() > 100 * (min(width, height) / 80) ** 2, shape.name
    for name in PLACES:
        for index in range(4):
            assert place(generator(0, name, index), name, width, height).size == (width, height)


def test_pictures_have_an_upright_order():
    """The sky is the lighter half nearly always, so that turning a picture shows."""
    names = list(OBJECTS)
    drawn = [single(generator(0, "sky", number), OBJECTS[names[number % 40]], 64, 64)[0] for number in range(400)]
    pixels = np.stack([np.asarray(image.convert("L"), dtype=float) for image in drawn])
    assert (pixels[:, :16].mean(axis=(1, 2)) > pixels[:, -16:].mean(axis=(1, 2))).mean() > 0.9


def test_no_class_is_known_by_its_brightness():
    shapes = [*OBJECTS.values(), *(shape for _, shape in SPECIES)]
    drawn = [single(generator(0, shape.name, number), shape, 48, 48)[0] for shape in shapes for number in range(12)]
    drawn += [place(generator(0, name, number), name, 48, 48) for name in PLACES for number in range(12)]
    means = np.array([np.asarray(image, dtype=float).mean() for image in drawn]).reshape(-1, 12)
    assert means.mean(axis=1).std() < means.std(axis=1).mean() / 2
