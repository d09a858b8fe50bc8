"""`python tests/score_held_out.py moco`: what classifiers that fit better read from a finished desk run.

`linear_imagenet_moco` trains its classifiers for few steps on drawn pictures, on small crops. Here a logistic
regression on the standardised features, and the nearest neighbour, see the central crops that tests see. Four fifths
of the training images train them, and the last fifth scores them, so no test image is read. Pretraining saw all of
these images; of methods that see labels the scores therefore say little.
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

from benchmark.core.errors import UserError
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


def scores_in_words(run: Run, fitted: ImageSet, scored: ImageSet, machine: Machine) -> str:
    """Per cent of `scored` that a logistic regression and the nearest neighbour, trained on `fitted`, get right."""
    x, x_scored = (features_of(run, images, machine).values for images in (fitted, scored))
    known, truth = (np.asarray(images.labelled(Classes).values) for images in (fitted, scored))
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))  # no other C was tried
    nearest = KNeighborsClassifier(1, metric="cosine")
    return "  ".join(
        f"{name} {100 * one.fit(x, known).score(x_scored, truth):.1f}"
        for name, one in (("linear", linear), ("nearest", nearest))
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
    if not run.backbone.is_file():
        raise SystemExit(f"{run.backbone}: no such backbone file; pretrain {run.name} first, or set --runs or --seed")
    try:
        found = scores_in_words(run, *fifth_held_out(finished.data), Machine(torch.device("cpu"), workers=2))
    except UserError as error:
        raise SystemExit(str(error)) from error
    print(f"{run.name} seed {run.seed}, a fifth that these classifiers did not see: {found}")


if __name__ == "__main__":
    main(tyro.cli(Finished))
