"""One pretraining run by name, and where its files lie."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmark.core import distributed
from benchmark.data.datasets import open_dataset
from benchmark.data.image_set import ImageSet
from benchmark.data.splits import percent_of
from benchmark.recipe.contract import Recipe
from benchmark.recipe.pools import Pool
from benchmark.recipe.scales import Scale, at_scale
from benchmark.records.folders import CLOCK, PRETRAINING, write_clock

IMPORTED = "imported"


@dataclass(frozen=True)
class Run:
    """One pretraining run: which recipe, at which scale and seed, on whose data, and where its files lie.

    init: the run, or the imported backbone, whose weights it starts from; empty for those that the seed draws."""

    name: str
    scale: Scale
    seed: int
    data_root: Path
    runs: Path
    init: str = ""

    @property
    def folder(self) -> Path:
        return self.runs / self.scale / self.name / f"seed{self.seed}"

    @property
    def imported(self) -> Path:
        """Where a backbone that was imported under this name lies: one for all scales and seeds, which trained it
        nowhere."""
        return self.runs / IMPORTED / f"{self.name}.safetensors"

    @property
    def backbone(self) -> Path:
        return self.imported if self.imported.is_file() else self.folder / "backbone.safetensors"

    @property
    def method(self) -> Path:
        """The trained method whole, where a transfer may ask for it (benchmark.engine.method_file)."""
        return self.folder / "method.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Where a pretraining that was stopped goes on from."""
        return self.folder / "checkpoint.pt"

    @property
    def workspace(self) -> Path:
        """What the transfers of this backbone keep between them, and to go on from."""
        return self.folder / "workspace"

    @property
    def initial(self) -> Path | None:
        """The backbone file that it starts from."""
        return dataclasses.replace(self, name=self.init, init="").backbone if self.init else None

    def before(self, recipe: Recipe) -> dict[str, Run]:
        """The runs like this one of the recipes that it comes after, by the names that it gives their backbones."""
        return {key: dataclasses.replace(self, name=name, init="") for key, name in recipe.after.items()}

    def after(self, recipe: Recipe) -> dict[str, Path]:
        """The backbone files that the recipe is given, by the same names."""
        return {key: run.backbone for key, run in self.before(recipe).items()}

    def resolved(self, recipe: Recipe) -> Recipe:
        """The recipe as this run runs it."""
        return dataclasses.replace(at_scale(recipe, self.scale), seed=self.seed)


@contextmanager
def pretraining_timed(run: Run) -> Iterator[None]:
    """Keep how long the block took, where it pretrained the run in one go."""
    is_whole, began = not run.checkpoint.is_file() and not run.backbone.is_file(), time.monotonic()
    yield
    if is_whole and distributed.rank() == 0:
        write_clock(run.folder / f"{PRETRAINING}{CLOCK}", time.monotonic() - began, distributed.world_size())


def pretraining_images(recipe: Recipe, data_root: Path) -> dict[str, ImageSet]:
    """The images of each of the recipe's pools by name."""
    return {name: pool_images(pool, data_root, recipe.seed) for name, pool in recipe.pools.items()}


def pool_images(pool: Pool, data_root: Path, seed: int) -> ImageSet:
    return percent_of(open_dataset(data_root, pool.dataset, pool.split), pool.percent, seed)
