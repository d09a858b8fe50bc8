"""`python tests/choose_settings.py supcon optimizers.main.lr=8e-3`: what a change of a desk recipe is worth.

Pretraining sees four fifths of the training images, for as many epochs as are asked for, with its milestones or cosine
inside them. The last fifth is what the network is judged by, so settings can be chosen without a test image, also those
of methods that see labels. `--probe-every` cannot do that: its images are held out of the vote, not of the run.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from score_held_out import fifth_held_out, scores_in_words

from benchmark.core.errors import UserError
from benchmark.engine.train import Machine, pretrain
from benchmark.recipe import Epochs, Milestones, Part
from benchmark.recipe.catalogue import get_recipe
from benchmark.recipe.contract import Recipe
from benchmark.recipe.overrides import given_once, override
from benchmark.recipe.scales import at_scale
from benchmark.runs.run import Run


@dataclass(frozen=True)
class Trial:
    """recipe: its name. changes: key=value, as `sslbench plan` names the keys without `--recipe.`. epochs: of the four
    fifths. data: the drawn world. seed: of the run; the fifth is always the same."""

    recipe: tyro.conf.Positional[str]
    changes: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    epochs: int = 40
    data: Path = Path("data/desk")
    seed: int = 0


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """With its milestones in the same places of the run. Warm-ups that are counted in epochs stay."""
    assert isinstance(recipe.length, Epochs)
    whole, schedule = recipe.length.epochs, recipe.schedule
    if isinstance(schedule, Milestones):
        at = tuple(Part(point.epochs / whole) if isinstance(point, Epochs) else point for point in schedule.at)
        schedule = replace(schedule, at=at)
    return replace(recipe, length=Epochs(epochs), schedule=schedule)


def main(trial: Trial) -> None:
    torch.set_num_threads(1)
    try:
        recipe = override(get_recipe(trial.recipe), given_once(trial.changes), "desk")
    except UserError as error:
        raise SystemExit(str(error)) from error
    recipe = replace(with_epochs(at_scale(recipe, "desk"), trial.epochs), seed=trial.seed)
    seen, unseen = fifth_held_out(trial.data)
    machine = Machine(torch.device("cpu"), workers=2)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(f"{trial.recipe}-trial", "desk", trial.seed, trial.data, Path(folder))
        pretrain(recipe, run.name, seen, run.folder, machine)
        found = scores_in_words(run, seen, unseen, machine)
    print(f"{trial.recipe} {' '.join(trial.changes)} {trial.epochs} epochs, {len(unseen)} unseen images: {found}")


if __name__ == "__main__":
    main(tyro.cli(Trial))
