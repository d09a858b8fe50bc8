"""One writer per on-disk layout: it says which pictures there are, draws any one of them, and writes the lists last."""

from __future__ import annotations

from benchmark.toyland.layouts import (
    coco2017,
    imagenet,
    inat2018,
    places205,
    places365,
    suncg_scenenet,
    tiny_imagenet,
    voc,
    yfcc100m,
    youtube_patches,
)
from benchmark.toyland.layouts.base import LayoutWriter

LAYOUTS: dict[str, LayoutWriter] = {
    layout.name: layout
    for layout in (
        imagenet.LAYOUT,
        tiny_imagenet.LAYOUT,
        voc.LAYOUT_2007,
        voc.LAYOUT_2012,
        places205.LAYOUT,
        inat2018.LAYOUT,
        yfcc100m.LAYOUT,
        coco2017.LAYOUT,
        youtube_patches.LAYOUT,
        suncg_scenenet.LAYOUT,
        places365.LAYOUT,
    )
}
