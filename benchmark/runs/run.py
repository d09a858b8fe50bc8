"""One pretraining run by name, and where its files lie."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from benchmark.data.datasets import open_dataset
from benchmark.data.image_set import ImageSet
from benchmark.recipe.contract import Recipe
from benchmark.recipe.scales import Scale, at_scale


@dataclass(frozen=True)
class Run:
    """One pretraining run: which recipe, at which scale and seed, on whose data, and where its files lie."""

    name: str
    scale: Scale
    seed: int
    data_root: Path
    runs: Path

    @property
    def folder(self) -> Path:
        return self.runs / self.scale / self.name / f"seed{self.seed}"

    @property
    def backbone(self) -> Path:
        return self.folder / "backbone.safetensors"

    @property
    def workspace(self) -> Path:
        """What the transfers of this backbone keep between them, and to go on from."""
        return self.folder / "workspace"

    def resolved(self, recipe: Recipe) -> Recipe:
        """The recipe as this run runs it."""
        return dataclasses.replace(at_scale(recipe, self.scale), seed=self.seed)


def pretraining_images(recipe: Recipe, data_root: Path) -> ImageSet:
    return open_dataset(data_root, recipe.data, "train")
