"""The real on-disk layouts in miniature, written by hand, for the tests of the readers; nothing here uses a reader."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy.io import savemat

WNIDS = ("n01440764", "n02105855", "n03018349")
# ILSVRC2012_ID of each WNID: not in WNID order, as in the real devkit.
IDS = {"n01440764": 3, "n02105855": 1, "n03018349": 2}
VAL_IDS = (1, 3, 2, 2, 1, 3)  # the devkit's ground truth: one id for each validation image
VAL_LABELS = (1, 0, 2, 2, 1, 0)  # the same as places in WNIDS

VOC_CLASSES = ["aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
               "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"]  # fmt: skip


def image(path: Path, colour: tuple[int, int, int] | None = None, size: tuple[int, int] = (10, 8)) -> Path:
    """Of one colour, by default one that follows from the file's name, so that no two are alike or of one size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = zlib.crc32("/".join(path.parts[-3:]).encode("utf-8", "surrogateescape")).to_bytes(4)
    comment = b"x" * (int.from_bytes(drawn) % 997)  # so that sizes differ, as those of photos do
    Image.new("RGB", size, colour or (drawn[0], drawn[1], drawn[2])).save(path, "JPEG", comment=comment)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def imagenet(root: Path, flat: bool) -> Path:
    home = root / "imagenet"
    for wnid in reversed(WNIDS):
        for number in (10026, 4, 293):  # not padded: as text, 10026 comes before 293
            image(home / "train" / wnid / f"{wnid}_{number}.JPEG")
    for number, label in enumerate(VAL_LABELS, start=1):
        folder = home / "val" if flat else home / "val" / WNIDS[label]
        image(folder / f"ILSVRC2012_val_{number:08d}.JPEG")
    if flat:
        devkit(home)
    return home


def devkit(home: Path, ids: dict[str, int] = IDS, val_ids: Sequence[int] = VAL_IDS) -> None:
    data = home / "ILSVRC2012_devkit_t12" / "data"
    text(data / "ILSVRC2012_validation_ground_truth.txt", "".join(f"{i}\n" for i in val_ids))
    rows = [(ids[wnid], wnid, f"words of {wnid}", 0) for wnid in sorted(ids, key=ids.__getitem__)]
    rows.append((1 + len(ids), "n00001740", "the parent of them all", 3))
    fields = ("ILSVRC2012_ID", "WNID", "words", "num_children")
    synsets = np.empty((len(rows), 1), dtype=[(field, object) for field in fields])
    for i, row in enumerate(rows):
        synsets[i, 0] = row
    savemat(data / "meta.mat", {"synsets": synsets})


def tiny_imagenet(root: Path) -> Path:
    home = root / "tiny-imagenet-200"
    text(home / "wnids.txt", "n03018349\nn01440764\n")
    for wnid in ("n03018349", "n01440764"):
        for number in range(2):
            image(home / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", size=(64, 64))
        text(home / "train" / wnid / f"{wnid}_boxes.txt", f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
    rows = (("val_0.JPEG", "n03018349"), ("val_1.JPEG", "n01440764"), ("val_2.JPEG", "n03018349"))
    for name, _ in rows:
        image(home / "val" / "images" / name, size=(64, 64))
    text(home / "val" / "val_annotations.txt", "".join(f"{name}\t{wnid}\t0\t32\t44\t62\n" for name, wnid in rows))
    return home


def places205(root: Path) -> Path:
    home = root / "places205"
    images = home / "data" / "vision" / "torralba" / "deeplearning" / "images256"
    names = {
        "a/abbey/gsun_1.jpg": 0,
        "m/mountain/snowy/gsun_2.jpg": 2,
        "a/airport/gsun 3.jpg": 1,
        "a/abbey/gsun_4.jpg": 0,
    }
    for name in names:
        image(images / name)
        image(images / name.replace("gsun", "vsun"))
    for split, prefix in (("train", "gsun"), ("val", "vsun")):
        lines = "".join(f"{name.replace('gsun', prefix)} {label}\n" for name, label in names.items())
        text(home / "trainvalsplit_places205" / f"{split}_places205.csv", lines)
    return home


def inat2018(root: Path) -> Path:
    home = root / "inat2018"
    names = {11: "train_val2018/Plantae/7/b.jpg", 5: "train_val2018/Aves/3/a.jpg", 8: "train_val2018/Aves/3/c.jpg"}
    category_of = {11: 7, 5: 3, 8: 3}
    for name in names.values():
        image(home / name)
        image(home / name.replace(".jpg", "v.jpg"))
    content = {
        "info": {"year": 2018},
        "images": [{"id": i, "file_name": name, "width": 10, "height": 8} for i, name in names.items()],
        "annotations": [{"id": 90 - i, "image_id": i, "category_id": category_of[i]} for i in (5, 8, 11)],
        "categories": [{"id": i, "name": f"species {i}", "supercategory": "x"} for i in (7, 3, 5)],
    }
    for split, end in (("train", ".jpg"), ("val", "v.jpg")):
        text(home / f"{split}2018.json", json.dumps(content).replace(".jpg", end))
    return home


XML = """<annotation>
  <folder>VOC2007</folder><filename>{id}.jpg</filename>
  <size><width>10</width><height>8</height><depth>3</depth></size>
  <object>
    <name>person</name><pose>Left</pose><truncated>0</truncated><difficult>0</difficult>
    <bndbox><xmin>2</xmin><ymin>1</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>
    <part><name>head</name><bndbox><xmin>4</xmin><ymin>1</ymin><xmax>6</xmax><ymax>3</ymax></bndbox></part>
  </object>
  <object>
    <name>dog</name><pose>Left</pose><truncated>1</truncated><difficult>1</difficult>
    <bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>10</xmax><ymax>7.5</ymax></bndbox>
  </object>
</annotation>
"""


NOTHING = "<annotation><size><width>10</width><height>8</height></size></annotation>"
DOG = """<annotation><size><width>10</width><height>8</height></size><object><name>dog</name><difficult>0</difficult>
<bndbox><xmin>3</xmin><ymin>2</ymin><xmax>9</xmax><ymax>7</ymax></bndbox></object></annotation>"""
VOC_SPLITS = {
    "train": ("000005", "000007"),
    "val": ("000032",),
    "trainval": ("000005", "000032", "000007"),
    "test": ("000001", "000002", "000003"),
}


def voc(root: Path, year: str = "2007", xmls: tuple[str, str, str] = (XML, DOG, NOTHING)) -> Path:
    """Three images, and three more of the same for the test split of 2007: by default of a person and a difficult dog,
    of a dog, of nothing."""
    home = root / "VOCdevkit" / f"VOC{year}"
    shows = {
        image_id: xml for split in ("trainval", "test") for image_id, xml in zip(VOC_SPLITS[split], xmls, strict=True)
    }
    splits = {split: ids for split, ids in VOC_SPLITS.items() if year == "2007" or split != "test"}
    for image_id in {one for ids in splits.values() for one in ids}:
        image(home / "JPEGImages" / f"{image_id}.jpg")
        text(home / "Annotations" / f"{image_id}.xml", shows[image_id].replace("{id}", image_id))
    codes = {XML: {"person": 1, "dog": 0}, DOG: {"dog": 1}}
    for split, ids in splits.items():
        text(home / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{i}\n" for i in ids))
        for name in VOC_CLASSES:
            rows = ((one, codes.get(shows[one].replace("<xmin>-3", "<xmin>2"), {}).get(name, -1)) for one in ids)
            lines = "".join(f"{image_id} {code:2d}\n" for image_id, code in rows)  # two spaces before a 0 or 1
            text(home / "ImageSets" / "Main" / f"{name}_{split}.txt", lines)
    text(home / "ImageSets" / "Segmentation" / "val.txt", "000032\n")
    palette(home / "SegmentationClass" / "000032.png", np.pad(np.full((6, 8), 12, np.uint8), 1, constant_values=255))
    return home


def sbd(root: Path) -> Path:
    """VOC2012 with a mask for 000032 (val), and SBD, which has that image too and the other two in train."""
    voc(root, "2012")
    lists = root / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    text(lists / "train.txt", "000005\n")
    palette(root / "VOCdevkit/VOC2012/SegmentationClass/000005.png", np.full((8, 10), 3, np.uint8))
    home = root / "benchmark_RELEASE/dataset"
    text(home / "train.txt", "000007\n000005\n")
    text(home / "val.txt", "000032\n\n")
    for image_id in ("000007", "000005", "000032"):
        mat(home / "cls" / f"{image_id}.mat", np.full((8, 10), 9, np.uint8))
    return home


def coco(root: Path) -> Path:
    """Three images: of a person and a crowd of dogs, of a dog in two parts that reaches over the edge, of nothing. Ids
    are in no order, and those of the categories have gaps. Both splits are alike."""
    home = root / "coco"
    names = {397133: "000000397133.jpg", 139: "000000139.jpg", 37777: "000000037777.jpg"}
    person = {"category_id": 1, "bbox": [2, 1, 4.5, 6], "area": 20.25}
    dog = {"category_id": 18, "bbox": [5.5, 3, 5, 4], "area": 12}
    crowd = {"category_id": 18, "bbox": [0, 0, 10, 2], "area": 20}
    triangle, square = [5.5, 3, 9, 3, 9, 7], [8, 4, 10.5, 4, 10.5, 6, 8, 6]
    rows = [2, 6] * 10  # the upper two of eight, in each of ten columns
    content = {
        "info": {"year": 2017},
        "images": [{"id": i, "file_name": name, "width": 10, "height": 8} for i, name in names.items()],
        "annotations": [
            {"id": 1768, "image_id": 139, "iscrowd": 0, "segmentation": [triangle, square], **dog},
            {"id": 900100, "image_id": 397133, "iscrowd": 1, **crowd}
            | {"segmentation": {"size": [8, 10], "counts": [0, *rows]}},
            {"id": 42, "image_id": 397133, "iscrowd": 0, "segmentation": [[2, 1, 6.5, 1, 6.5, 7, 2, 7]], **person},
        ],
        "categories": [
            {"supercategory": "x", "id": i, "name": name}
            for i, name in ((90, "toothbrush"), (1, "person"), (18, "dog"))
        ],
    }
    for split in ("train", "val"):
        for name in names.values():
            image(home / f"{split}2017" / name)
        text(home / "annotations" / f"instances_{split}2017.json", json.dumps(content))
    return home


def mat(path: Path, mask: np.ndarray) -> None:
    """As SBD's: a struct GTcls with Boundaries, Segmentation and CategoriesPresent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"GTcls": {"Boundaries": 0, "Segmentation": mask, "CategoriesPresent": np.unique(mask)}})


def palette(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.frombytes("P", values.shape[::-1], values.tobytes())
    mask.putpalette([(7 * i) % 256 for i in range(768)])  # colours that have nothing to do with the indices
    mask.save(path)


def yfcc(root: Path) -> Path:
    home = root / "yfcc100m"
    for name in ("0/b.jpg", "0/a.jpg", "1/0/c.png.jpg", "1/notes.txt", "z.jpg"):
        image(home / name)
    return home


def youtube_patches(root: Path) -> Path:
    """Two tracks of video 7, and one of video 3; and a patch that the list leaves out."""
    home = root / "youtube_patches"
    tracks = (("E5K-WUqpmvw", 1, 7), ("E5K-WUqpmvw", 2, 7), ("DmeLCEonmfk", 2, 3))
    names = {f"{folder}/pairs2/{track:07d}_{end}.jpg": video for folder, track, video in tracks for end in (1, 2)}
    for name in (*names, "DmeLCEonmfk/pairs2/0000003_1.jpg"):
        image(home / name)
    text(home / "trainlist.txt", "".join(f"{name} {video}\n" for name, video in names.items()))
    return home


SCENES = ("suncg eaf9f8af/000005", "scenenet train/2/2751 5400", "suncg 074dc0ff/000006")


def suncg_scenenet(root: Path, scenes: Sequence[str] = SCENES) -> Path:
    """Each picture with its maps: depths of more than 8 bits, other numbers in each scene."""
    home = root / "suncg_scenenet"
    for number, scene in enumerate(scenes):
        source, *names = scene.split()
        if source == "suncg":
            picture, folder, file = "mlt", home / "suncg_image256", f"{names[0]}_256.png"
        else:
            picture, folder, file = "photo", home / "scenenet5m" / names[0], f"{names[1]}.jpg"
        image(folder / picture / file)
        for kind, values in scene_maps(number).items():
            path = (folder / kind / file).with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            named = PngInfo()
            named.add_text("of", f"{scene} " * (1 + 3 * number + "den".index(kind[0])))  # so that sizes differ
            Image.fromarray(values).save(path, pnginfo=named)
    text(home / "train_1m_shuffle.txt", "".join(f"{scene}\n" for scene in scenes))
    return home


def scene_maps(number: int) -> dict[str, np.ndarray]:
    """Of the scene of that number, 10 x 8 pixels as its picture is."""
    rng = np.random.default_rng(number)
    return {
        "depth": rng.integers(500, 9000, (8, 10), dtype=np.uint16),
        "normal": rng.integers(0, 256, (8, 10, 3), dtype=np.uint8),
        "edge": 255 * rng.integers(0, 2, (8, 10), dtype=np.uint8),
    }


def places365(root: Path) -> Path:
    home = root / "places365_standard"
    for split, name in (("train", "{:08d}.jpg"), ("val", "Places365_val_{:08d}.jpg")):
        for place in ("airfield", "arena-hockey", "zen_garden"):
            for number in (1, 2):
                image(home / split / place / name.format(number))
    return home


def yfcc_zips(root: Path, zips: dict[str, list[str]]) -> Path:
    home = root / "yfcc100m_zips"
    jpeg = image(root / "one.jpg").read_bytes()
    for name, members in zips.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(home / name, "w") as archive:
            for member in members:
                archive.writestr(member, jpeg)
    return home
