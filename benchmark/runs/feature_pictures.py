"""Two pictures of features: a map on which images lie near each other that the backbone takes for alike, and a sheet of
the nearest neighbours of some images."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from textwrap import wrap

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image, ImageDraw, ImageOps
from sklearn.manifold import TSNE

from benchmark.runs.image_features import ImageFeatures
from benchmark.transfers import pictures

MOST = 5000  # images on a map; t-SNE of these, of 512 numbers each, took half a minute on one core
LEAST = 5
PERPLEXITY = 30.0
SAME = 1e-6  # apart in no coordinate of features of length 1: single precision tells no more
THUMBNAILS, THUMBNAIL = 500, 26  # how many on a map, and their longer side in pixels
COLOURS = 18  # folders that get one of their own; the others are grey
QUERIES, NEIGHBOURS = 8, 7
SIDE, MARGIN, CAPTION = 112, 6, 14  # of a tile, in pixels
BACKGROUND, INK, FAINT = (255, 255, 255), (20, 20, 20), (120, 120, 120)
NAMED = 18  # letters of a name that fit below a tile


def no_map_because(features: ImageFeatures) -> str:
    """Why the images cannot lie near each other in any way of their own; empty where they can."""
    values = features.values
    if len(values) < LEAST:
        return f"{len(values)} images are too few; it takes {LEAST} or more"
    if not np.isfinite(values).all():
        return "some features are no finite numbers"
    return "the features of all images are the same" if np.ptp(_of_length_1(values), axis=0).max() < SAME else ""


def map_picture(features: ImageFeatures, seed: int) -> bytes:
    """A PNG: t-SNE of the features, each image a point in its folder's colour, or a small picture where there is one
    folder; of more than 5,000 images a sample that the seed draws. Only where `no_map_because` says nothing."""
    shown = _sample(len(features.values), MOST, seed)
    places = embedding(features.values[shown], seed)
    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.add_subplot()
    if features.are_sorted:
        _points(axes, places, np.array(features.folders)[shown])
        figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    else:
        _thumbnails(axes, places, shown, features)
    axes.set_xticks([])
    axes.set_yticks([])
    count = f"{len(shown):,} of {len(features.values):,} images, t-SNE, seed {seed}"
    axes.set_title("\n".join([*wrap(features.about["backbone"].replace(",", ", "), 90), count]), fontsize=10)
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()


def _points(axes: Axes, places: np.ndarray, folders: np.ndarray) -> None:
    named = [name for name, _ in Counter(folders.tolist()).most_common(COLOURS)]
    rest = ~np.isin(folders, named)
    axes.scatter(places[rest, 0], places[rest, 1], s=14, color="lightgrey", label="others" if rest.any() else None)
    for name, colour in zip(named, _colours(len(named)), strict=True):
        x, y = places[folders == name].T
        axes.scatter(x, y, s=22, color=colour, label=_short(name, 28), edgecolors="none")


def _thumbnails(axes: Axes, places: np.ndarray, shown: np.ndarray, features: ImageFeatures) -> None:
    """Of images that no folder tells apart a colour says nothing; of many only some are shown, the others as points."""
    axes.scatter(places[:, 0], places[:, 1], s=8, color="lightgrey")
    for number in _sample(len(shown), THUMBNAILS, seed=0).tolist():
        small = ImageOps.contain(features.images.open(int(shown[number])), (THUMBNAIL, THUMBNAIL))
        axes.add_artist(AnnotationBbox(OffsetImage(np.asarray(small)), tuple(places[number]), frameon=False, pad=0))


def embedding(values: np.ndarray, seed: int) -> np.ndarray:
    """(N, D) -> (N, 2) by t-SNE on cosine distances. The same for a seed, on one machine."""
    perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, metric="cosine", init="pca", random_state=seed)
    return tsne.fit_transform(values.astype(np.float64))


def neighbours_picture(features: ImageFeatures) -> bytes:
    """A PNG: in each row an image, evenly drawn from the set, and those nearest to it, with their cosines."""
    count = len(features.values)
    queries = pictures.shown(count, QUERIES)
    near, cosines = nearest_images(features.values, queries, min(NEIGHBOURS, count - 1))
    width, height = SIDE + MARGIN, SIDE + 2 * CAPTION + MARGIN
    columns = 1 + near.shape[1]
    page = Image.new("RGB", (columns * width + 3 * MARGIN, len(queries) * height + MARGIN), BACKGROUND)
    for row, query in enumerate(queries):
        top = MARGIN + row * height
        _place(page, features, query, (MARGIN, top), "")
        for column, (other, cosine) in enumerate(zip(near[row].tolist(), cosines[row].tolist(), strict=True), 1):
            _place(page, features, other, (3 * MARGIN + column * width, top), f"cosine {cosine:.3f}")
    content = io.BytesIO()
    page.save(content, format="PNG")
    return content.getvalue()


def nearest_images(values: np.ndarray, queries: Sequence[int], count: int) -> tuple[np.ndarray, np.ndarray]:
    """((Q, count) int64, (Q, count) float32): for each query the images of largest cosine without itself, the nearest
    first, and these cosines."""
    unit = _of_length_1(values)
    cosines = unit[list(queries)] @ unit.T  # (Q, N)
    own = cosines.copy()
    own[np.arange(len(queries)), list(queries)] = -np.inf
    order = np.argsort(-own, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(cosines, order, axis=1)


def _of_length_1(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _place(page: Image.Image, features: ImageFeatures, index: int, corner: tuple[int, int], told: str) -> None:
    """The image in a tile, and below it its folder, or its name where there is one folder, and its cosine."""
    left, top = corner
    tile = ImageOps.contain(features.images.open(index), (SIDE, SIDE))
    page.paste(tile, (left + (SIDE - tile.width) // 2, top + (SIDE - tile.height) // 2))
    draw = ImageDraw.Draw(page)
    name = features.folders[index] if features.are_sorted else PurePosixPath(features.files[index]).name
    draw.text((left, top + SIDE + 1), _short(name, NAMED), fill=INK)
    draw.text((left, top + SIDE + CAPTION), told or "the image", fill=FAINT)


def _sample(count: int, most: int, seed: int) -> np.ndarray:
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def _colours(count: int) -> list[tuple[float, float, float]]:
    """All told apart, and none of them grey."""
    known = colormaps["tab10" if count < 10 else "tab20"].colors  # type: ignore[attr-defined]
    return [colour for colour in known if max(colour) - min(colour) > 0.05][:count]


def _short(name: str, most: int) -> str:
    """The end of a name tells more than its beginning."""
    return name if len(name) <= most else f"…{name[-most + 1 :]}"
