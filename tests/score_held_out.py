"""`python tests/score_held_out.py moco`: what classifiers that fit better read from a finished desk run.

The protocols train their classifiers for few steps on drawn pictures, on crops. Here a logistic regression on the
standardised features, and the nearest neighbour, see the images whole. Four fifths of the training images train them,
and the last fifth scores them, so no test image is read. Pretraining saw all of these images; of methods that see
labels the scores therefore say little.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmark.data.datasets import open_dataset
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes
from benchmark.data.splits import held_out
from benchmark.engine.train import Machine
from benchmark.runs.image_features import features_of
from benchmark.runs.run import Run


def fifth_held_out(data: Path) -> tuple[ImageSet, ImageSet]:
    """Four fifths of the drawn training images, and the fifth that scores; always the same."""
    return held_out(open_dataset(data, "imagenet", "train"), 0.2, 0)


def scores(run: Run, seen: ImageSet, unseen: ImageSet, machine: Machine) -> str:
    """Per cent of `unseen` that a logistic regression and the nearest neighbour, fitted to `seen`, get right."""
    x, y = (features_of(run, images, machine).values for images in (seen, unseen))
    known, truth = (np.asarray(images.labelled(Classes).values) for images in (seen, unseen))
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(x, known)
    nearest = KNeighborsClassifier(1, metric="cosine").fit(x, known)
    return "  ".join(
        f"{name} {100 * one.score(y, truth):.1f}" for name, one in (("linear", linear), ("nearest", nearest))
    )


@dataclass(frozen=True)
class Finished:
    """recipe: its name. seed: of the run. data: the drawn world. runs: where the run lies."""

    recipe: tyro.conf.Positional[str]
    seed: int = 0
    data: Path = Path("data/desk")
    runs: Path = Path("runs")


def main(finished: Finished) -> None:
    torch.set_num_threads(1)
    run = Run(finished.recipe, "desk", finished.seed, finished.data, finished.runs)
    found = scores(run, *fifth_held_out(finished.data), Machine(torch.device("cpu"), workers=2))
    print(f"{run.name} seed {run.seed}, the fifth held out: {found}")


if __name__ == "__main__":
    main(tyro.cli(Finished))
