"""Draws docs/layers.png: ImageNet-linear accuracy by stage, from the paper's Table 7 and as measured at two scales.

    python docs/figures/layers.py

Measured values are the published records; each line is the mean over seeds, its band one standard deviation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmark.recipe.scales import Scale
from benchmark.records.folders import read_published
from benchmark.records.record import Record
from benchmark.tables.ledger import LEADERBOARDS, read_reported

OUT = Path(__file__).parents[1] / "layers.png"
STAGES = ("conv1", "res2", "res3", "res4", "res5")
TRANSFER = "linear_imagenet_pirl"
TITLES = {
    "random_init": "Random",
    "supervised": "Supervised",
    "rotation": "Rotation",
    "jigsaw": "Jigsaw",
    "npid": "NPID",
    "npid_pp": "NPID++",
    "pirl": "PIRL",
}
COLOURS = dict(zip(TITLES, ("#6e7781", "#1f2328", "#0b7285", "#5f3dc4", "#2b8a3e", "#e67700", "#c2255c"), strict=True))
Curves = dict[str, list[list[float]]]  # method -> for each seed, the accuracy at each stage


def reported() -> Curves:
    values = {
        (row.method, row.setting): row.value
        for row in read_reported("misra2020_pirl")
        if row.transfer == "imagenet_linear" and row.setting in STAGES
    }
    methods = {method for method, _ in values}
    return {
        m: [[float(values[m, stage]) for stage in STAGES]]
        for m in methods
        if m in TITLES and all((m, stage) in values for stage in STAGES)
    }


def measured(records: Sequence[Record], scale: Scale) -> Curves:
    curves: Curves = defaultdict(list)
    for record in records:
        if record.scale == scale and record.transfer == TRANSFER and record.recipe in TITLES:
            curves[record.recipe].append([record.detail["per_stage"][stage] for stage in STAGES])
    return curves


def draw(axes: Axes, curves: Curves, title: str) -> None:
    for method in [name for name in TITLES if name in curves]:
        values = np.array(curves[method])  # (seeds, stages)
        mean, spread = values.mean(axis=0), values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(STAGES))
        axes.plot(STAGES, mean, marker="o", color=COLOURS[method], label=TITLES[method])
        axes.fill_between(STAGES, mean - spread, mean + spread, color=COLOURS[method], alpha=0.15, linewidth=0)
    axes.set_title(title, fontsize=11)
    axes.set_ylabel("top-1, %")
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12.5, 4), layout="constrained")
    records = list(read_published(LEADERBOARDS / "measured"))
    draw(left, reported(), "Reported: ImageNet (PIRL, Table 7)")
    draw(middle, measured(records, "photos"), "Measured: photos, Tiny ImageNet")
    draw(right, measured(records, "desk"), "Measured: desk, Toyland")
    right.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(OUT, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
