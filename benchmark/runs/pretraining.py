"""One run's pretraining, however it was asked for: its data checked, its images found, its time kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark.core.optimisation import Span
from benchmark.engine.train import Machine, pretrain
from benchmark.engine.watch import Watch
from benchmark.recipe.contract import Recipe
from benchmark.runs.own_images import require_enough
from benchmark.runs.probe import TrainingImagesProbe
from benchmark.runs.published_losses import published_losses
from benchmark.runs.run import Run, pretraining_images, pretraining_timed
from benchmark.runs.sound_data import checked_pools


def pretrain_run(
    run: Run,
    recipe: Recipe,
    machine: Machine,
    after: Mapping[str, Path],
    incomplete: bool,
    probe_every: Span | None = None,
    log_to: Sequence[str] = (),
) -> None:
    """Make run.backbone. recipe: as the run runs it. after: the backbone files that it comes after. incomplete: whether
    data that is not complete will do. probe_every: how often its training images are to say what it is worth. log_to:
    services that get its figures. Raises UserError for data that will not do, and whatever the engine's does."""
    of_data = checked_pools(recipe, run, incomplete)
    images = pretraining_images(recipe, run.data_root)
    require_enough(recipe, images)
    probe = TrainingImagesProbe(images, run.seed, machine) if probe_every else None
    watch = Watch(probe, probe_every, tuple(dict.fromkeys(log_to)), run.runs, published_losses(run, recipe))
    with pretraining_timed(run):
        pretrain(recipe, run.name, images, run.folder, machine, after, of_data, run.initial, watch)
