"""One true step of the paper's own size: 224 pixels, full width, 32,000 negatives, a bank of all of ImageNet."""

from __future__ import annotations

import resource
from dataclasses import replace

import pytest
import torch
from PIL import Image

from benchmark.data.batch import Batch
from benchmark.data.image_set import ImageSet
from benchmark.engine.players import build_players
from benchmark.engine.train import build_method, train_step
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.pools import Given

IMAGENET = 1_281_167


@pytest.mark.slow
def test_a_pirl_step(tmp_path, capsys: pytest.CaptureFixture[str]):
    recipe = find_recipes()["pirl"]
    assert (recipe.method.N, recipe.input.size, recipe.backbone.width) == (32_000, 224, 1.0)
    images = []
    for number in range(2):
        path = tmp_path / f"{number}.png"
        Image.effect_noise((320, 280), 60 + number).convert("RGB").save(path)
        images.append(ImageSet("x/train", tmp_path, [path.name]).open(0))
    seen = [recipe.method.views(image, recipe.input) for image in images]
    views = {name: torch.stack([view[name] for view in seen]) for name in seen[0]}
    assert views["I"].shape == (2, 3, 224, 224)
    assert views["I_t"].shape == (2, 9, 3, 64, 64)
    # in groups of two, for 32 images would take 16 times as long
    recipe = replace(recipe, backbone=replace(recipe.backbone, over=2))
    method = build_method(recipe, Given(IMAGENET))
    assert method.bank.rows.shape == (IMAGENET, 128)
    index = torch.tensor([5, IMAGENET - 1])
    before = method.bank.rows[index].clone()
    untouched = method.bank.rows[6].clone()
    figures = train_step(method, Batch(views, index, seed=3), build_players(method, recipe), recipe.precision)
    assert torch.isfinite(figures["loss/main"])
    assert not torch.equal(method.bank.rows[index], before)
    assert torch.equal(method.bank.rows[6], untouched)
    torch.testing.assert_close(method.bank.rows[index].norm(dim=1), torch.ones(2))
    with capsys.disabled():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"\npaper-scale PIRL step: loss {figures['loss/main']:.3f}, peak memory {peak:.2f} GiB")
