"""Views against torchvision, image by image."""

from __future__ import annotations

import pytest
import torch
from PIL.Image import Resampling
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from benchmark.core.errors import UserError
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.scales import at_scale
from benchmark.views.crops import cropped, flipped_crop
from benchmark.views.patches import grid_patches
from benchmark.views.photometric import FlipEach, GreyEach, JitterEach, shift_hue


@pytest.fixture
def stack() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("turn", [-0.4, -0.1, 0.0, 0.25, 0.5])
def test_hue_is_torchvisions(stack: torch.Tensor, turn: float):
    x = stack.float() / 255
    torch.testing.assert_close(shift_hue(x, torch.full((4, 1, 1), turn)), F.adjust_hue(x, turn), atol=2e-6, rtol=0)


def test_jitter_is_torchvisions_with_factors_of_each_images_own(stack: torch.Tensor):
    torch.manual_seed(7)
    ours = JitterEach(0.4, 0.4, 0.4, 0.2)(stack)
    torch.manual_seed(7)
    x = stack.float() / 255
    adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    factors_seen = set()
    for operation in torch.randperm(4).tolist():
        low, high = (-0.2, 0.2) if operation == 3 else (0.6, 1.4)
        factors = torch.empty(4).uniform_(low, high).tolist()
        factors_seen.update(factors)
        x = torch.stack([adjust[operation](image, factor) for image, factor in zip(x, factors, strict=True)])
    assert len(factors_seen) == 16
    assert (ours.float() - (x * 255).round()).abs().max() <= 1


def test_grey_is_torchvisions(stack: torch.Tensor):
    grey = F.rgb_to_grayscale(stack, num_output_channels=3)
    assert (GreyEach(1.0)(stack).float() - grey.float()).abs().max() <= 1
    assert torch.equal(GreyEach(0.0)(stack), stack)


def test_flip_turns_each_image_or_not(stack: torch.Tensor):
    many = stack.repeat(50, 1, 1, 1)
    flipped = FlipEach()(many)
    turned = (flipped == many.flip(-1)).flatten(1).all(1)
    kept = (flipped == many).flatten(1).all(1)
    assert (turned ^ kept).all()
    assert 60 < turned.sum() < 140


@pytest.mark.parametrize("K", [1, 4])
@pytest.mark.parametrize("change", [GreyEach, FlipEach])
def test_what_is_chosen_does_not_change_what_is_drawn(stack: torch.Tensor, K: int, change: type):
    """As if all were changed and the choice came after: the same pixels, and the same random numbers are left."""
    some = stack[:K]
    changed = change(1.0)(some)
    assert (changed != some).flatten(1).any(1).all()
    for seed in range(20):
        torch.manual_seed(seed)
        ours, next_ours = change(0.3)(some), torch.rand(1)
        torch.manual_seed(seed)
        expected = torch.where(torch.rand(K, 1, 1, 1) < 0.3, changed, some)
        assert torch.equal(ours, expected)
        assert torch.equal(next_ours, torch.rand(1))


@pytest.mark.parametrize("shape", [(90, 64), (64, 200), (5, 80)])
def test_a_flipped_crop_is_torchvisions(shape: tuple[int, int]):
    """Its pixels and its random numbers, also where an image is too long for the aspect ratios."""
    image = F.to_pil_image(torch.randint(0, 256, (3, *shape), dtype=torch.uint8))
    theirs = v2.Compose([v2.RandomResizedCrop(32, scale=(0.2, 1.0)), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    for seed in range(20):
        torch.manual_seed(seed)
        ours, next_ours = flipped_crop(image, 32, (0.2, 1.0)), torch.rand(1)
        torch.manual_seed(seed)
        assert torch.equal(ours, theirs(image))
        assert torch.equal(next_ours, torch.rand(1))


def test_a_crop_is_resized_as_asked():
    image = F.to_pil_image(torch.randint(0, 256, (3, 50, 60), dtype=torch.uint8))
    torch.manual_seed(1)
    ours = cropped(image, 32, (0.2, 1.0), Resampling.BICUBIC)
    torch.manual_seed(1)
    theirs = v2.RandomResizedCrop(32, scale=(0.2, 1.0), interpolation=v2.InterpolationMode.BICUBIC)(image)
    assert ours.tobytes() == theirs.tobytes()


def test_patches_lie_in_their_own_cells():
    side, cell, patch = 255, 85, 64
    place = torch.arange(side * side).view(1, side, side).expand(3, -1, -1)
    seen = set()
    for _ in range(300):
        patches = grid_patches(place, 3, patch)
        assert patches.shape == (9, 3, patch, patch)
        for number, corner in enumerate(patches[:, 0, 0, 0].tolist()):
            y, x = divmod(corner, side)
            dy, dx = y - number // 3 * cell, x - number % 3 * cell
            assert 0 <= dy <= cell - patch
            assert 0 <= dx <= cell - patch
            seen.update((dy, dx))
    assert seen == set(range(cell - patch + 1))


@pytest.mark.parametrize("patch", [0, 86])
def test_patches_that_fit_no_cell_are_refused(patch: int):
    with pytest.raises(UserError, match=f"patches of {patch} pixels do not fit 255 pixels cut 3 x 3"):
        grid_patches(torch.zeros(3, 255, 255, dtype=torch.uint8), 3, patch)


def test_a_method_and_its_baseline_see_equal_crops():
    """PIRL's comparison with NPID++ is of the pretext alone. (Desk scale gives them different hues.)"""
    pixels = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    recipes = find_recipes()
    seen = []
    for name, view in (("npid_pp", "image"), ("pirl", "I")):
        torch.manual_seed(5)
        recipe = at_scale(recipes[name], "paper")
        seen.append(recipe.method.views(F.to_pil_image(pixels), recipe.input)[view])
    assert torch.equal(*seen)
