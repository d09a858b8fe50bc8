"""What detection protocols do otherwise at the desk and smoke scales: nearly the same for all, so that their numbers
there differ by what the protocols differ in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmark.core.optimisation import Adam, Cosine, Steps, Warmup
from benchmark.recipe.scales import Scale
from benchmark.transfers.detection.c4 import DetectionValues
from benchmark.transfers.detection.settings import DetectorSettings
from benchmark.transfers.training import Course

STEPS, BATCH, CELLS = 1_100, 4, 4
PADDING = "paper: all 16 images of a step are padded to one size; detectron2 pads two at a time, grouped by orientation"


MOCO_DEPARTURES = (
    f"{PADDING}. BatchNorm's statistics include the padding",
    "paper: one process has all 16 images, so BatchNorm takes the place of SyncBN",
    "paper: statistics are measured again by PyTorch's cumulative average, not by fvcore's PreciseBN",
    "desk: statistics are measured again on 20 batches",
)


def desk_departures(steps: int = STEPS, cells: int = CELLS) -> tuple[str, ...]:
    """What every protocol's card says."""
    return (
        f"desk: {steps:,} steps on batches of {BATCH}, under bf16 autocast",
        "desk: AdamW at a rate of 0.0014, new layers at 1.5 times that, falling by half a cosine",
        "desk: shorter sides of 144 to 176 px, anchors of 56 to 152 px",
        f"desk: 32 anchors and 16 regions of {cells}x{cells} cells an image, up to half of the regions positive; "
        "at most 64 proposals",
    )


def at_scales(
    paper: DetectionValues[DetectorSettings], frozen_stages: int, steps: int = STEPS, cells: int = CELLS
) -> dict[Scale, DetectionValues[Any]]:
    """At the scales other than the paper's so many stages are frozen; at the desk's it trains so many steps."""
    small = replace(
        paper.settings,
        frozen_stages=frozen_stages,
        anchor_sides=(56, 80, 112, 152),
        anchors=32,
        regions=16,
        regions_positive=0.5,
        proposals_train=(400, 64),
        proposals_test=(400, 48),
        pooled_side=cells,
    )
    desk = DetectionValues(
        small,
        Course(Steps(steps), BATCH, Cosine(warmup=Warmup(Steps(20), 0.01)), "bf16"),
        Adam(lr=1.4e-3, weight_decay=1e-4, decoupled=True),
        head_rate=1.5,
        short_sides=(144, 160, 176),
        test_side=160,
        longest_side=320,
        test_longest_side=320,
        precise_steps=paper.precise_steps // 10,
    )
    smoke = replace(
        desk,
        course=Course(Steps(4), 2, Cosine(warmup=Warmup(Steps(2), 0.01)), "bf16"),
        short_sides=(64, 96),
        test_side=96,
        precise_steps=paper.precise_steps // 100,
    )
    return {"paper": paper, "desk": desk, "smoke": smoke}
