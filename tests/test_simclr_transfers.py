"""SimCLR's protocols, and what is fine-tuned and taught: values, rates, where classifiers start and what they see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from small_runs import CLASSES, RECIPES, drawn_images, on_cpu, untrained_before
from torch import Tensor, nn

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.weights import load_backbone
from benchmark.backbones.with_head import WithClassifier, WithProjection, WithProjectionHead, at_last_stage
from benchmark.core.errors import UserError
from benchmark.core.optimisation import LARS, SGD
from benchmark.data.batch import Batch
from benchmark.data.image_set import ImageSet
from benchmark.engine.feed import given_of
from benchmark.engine.method_file import load_method
from benchmark.engine.players import build_players
from benchmark.engine.train import build_method, pretrain
from benchmark.recipe import InputSpec, Recipe, Steps
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import with_change
from benchmark.recipe.pools import Given, Known
from benchmark.recipe.scales import at_scale
from benchmark.toyland import build_world
from benchmark.transfers import find_transfers
from benchmark.transfers.contract import Context
from benchmark.transfers.features import as_input
from benchmark.transfers.linear import Heads, LinearTransfer
from benchmark.transfers.semi_supervised_simclr import FineTuned, SemiSupervisedSimCLR
from benchmark.transfers.training import build_optimizer
from recipes.simclr_v2_distilled import Distilled, DistilledWithLabels, distillation

TRANSFERS, PAPER = find_transfers(), find_recipes()
IMAGENET, ONE_PERCENT = 1_281_167, 12_811
FINE_TUNING = sorted(name for name in TRANSFERS if isinstance(TRANSFERS[name], SemiSupervisedSimCLR))


def headed(width: float = 0.0625) -> Backbone:
    torch.manual_seed(0)
    return WithProjection(ResNet(width=width)).build(InputSpec(32)).eval()


def fine_tuning(name: str) -> SemiSupervisedSimCLR:
    transfer = TRANSFERS[name]
    assert isinstance(transfer, SemiSupervisedSimCLR)
    return transfer


def test_the_linear_protocol_has_its_papers_values():
    transfer = TRANSFERS["linear_imagenet_simclr"]
    assert isinstance(transfer, LinearTransfer)
    probe = transfer.values["paper"]
    assert probe.optimizers == (SGD(lr=1.6, momentum=0.9, nesterov=True),)
    assert probe.optimizers[0].lr == pytest.approx(0.1 * probe.course.batch_size / 256)
    assert probe.course.steps_total(IMAGENET) == 90 * (IMAGENET // 4096)
    half = probe.course.steps_total(IMAGENET) // 2
    assert [probe.course.factor(s, IMAGENET) for s in (0, half)] == pytest.approx([1, 0.5], abs=1e-3)
    assert (probe.held_out, probe.views, probe.track_every) == (0, None, None)
    heads = Heads({"res5": torch.rand(2, 8, 1, 1)}, 3, probe, seed=0, choosing=1)
    assert not any(p.any() for p in heads.parameters())
    assert len(transfer.values["desk"].optimizers) == 3


def test_behind_the_head_the_protocol_is_the_same(tmp_path: Path):
    """The classifier of h scores what it scores alone, and that of z sees what the head makes of h."""
    world = build_world(tmp_path / "world", "smoke", datasets=("imagenet",), progress=False)
    torch.manual_seed(0)
    backbone = WithProjectionHead(ResNet(width=0.0625), dim=8, layers=2).build(InputSpec(32)).eval()
    scores = {}
    for name in ("linear_imagenet_simclr", "linear_imagenet_simclr_head"):
        context = Context(world, "smoke", 0, tmp_path / name, torch.device("cpu"), 0, lambda *_: None)
        scores[name] = TRANSFERS[name].run(backbone, context)
    alone, both = (one.detail["per_stage"] for one in scores.values())
    assert [*both] == ["res5_average", "z"]
    assert both["res5_average"] == alone["res5_average"]
    linear, head = TRANSFERS["linear_imagenet_simclr"].card, TRANSFERS["linear_imagenet_simclr_head"].card
    assert not linear.refusal("WithProjection", ())
    assert "made for the stages of WithProjectionHead" in head.refusal("WithProjection", ())


@pytest.mark.parametrize(
    ("name", "batch", "epochs", "lr"),
    [
        ("semi_supervised_1pct_simclr", 4096, 60, 0.05 * 4096 / 256),
        ("semi_supervised_10pct_simclr", 4096, 30, 0.05 * 4096 / 256),
        ("semi_supervised_1pct_simclr_v2", 1024, 60, 0.005 * 1024**0.5),
        ("semi_supervised_10pct_simclr_v2", 1024, 30, 0.005 * 1024**0.5),
        ("semi_supervised_100pct_simclr_v2", 1024, 30, 0.005 * 1024**0.5),
    ],
)
def test_fine_tuning_has_its_papers_values(name: str, batch: int, epochs: int, lr: float):
    values = fine_tuning(name).values["paper"]
    assert values.course.batch_size == batch
    assert values.course.steps_total(ONE_PERCENT) == epochs * (ONE_PERCENT // batch)
    kind = LARS if name.endswith("v2") else SGD
    for optimizer in (values.network, values.classifier):
        assert isinstance(optimizer, kind)
        assert (optimizer.lr, optimizer.weight_decay) == (pytest.approx(lr), 0)
    assert values.from_last == (kind is LARS and "_100pct" not in name)


def test_lars_adapts_the_network_and_neither_norms_nor_the_classifier():
    values = fine_tuning("semi_supervised_1pct_simclr_v2").values["paper"]
    torch.manual_seed(0)
    network, classifier = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4)), nn.Linear(4, 2)
    optimizer = build_optimizer([(network.parameters(), values.network), (classifier.parameters(), values.classifier)])
    classifier(network(torch.randn(5, 3))).square().sum().backward()
    module = nn.ModuleDict({"network": network, "classifier": classifier})
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer.step()
    for name, p in module.named_parameters():
        g = p.grad
        assert g is not None
        ratio = 1e-3 * before[name].norm() / g.norm() if name == "network.0.weight" else 1.0
        torch.testing.assert_close(p.detach(), before[name] - 0.16 * ratio * g)


@pytest.mark.parametrize("from_last", [True, False])
def test_classifiers_start_at_zero_on_what_the_protocol_says(from_last: bool):
    backbone = headed()
    model = FineTuned(backbone, 3, from_last).eval()
    x = torch.randn(2, 3, 32, 32)
    assert not model(x).any()
    nn.init.eye_(model.classifier.weight)
    wanted = at_last_stage(backbone, x) if from_last else backbone(x)
    torch.testing.assert_close(model(x), wanted[:, :3])
    assert not torch.equal(at_last_stage(backbone, x)[:, :3], backbone(x)[:, :3])


def test_a_network_with_a_layer_of_its_head_is_fine_tuned(tmp_path: Path):
    world = build_world(tmp_path / "world", "smoke", datasets=("imagenet",), progress=False)
    found = {}
    for name in ("semi_supervised_10pct_simclr_v2", "semi_supervised_100pct_simclr_v2"):
        context = Context(world, "smoke", 0, tmp_path / name, torch.device("cpu"), 0, lambda *_: None)
        found[name] = TRANSFERS[name].run(headed(), context)
        assert found[name].metrics.keys() == {"top1", "top5"}
    images = [scores.detail["labelled_images"] for scores in found.values()]
    assert images[0] < images[1] / 5


# --- recipes that follow: fine-tuned, and taught


def test_distillation_is_its_formula():
    """Equation 2, and its gradient worked out on paper: (P_S - P_T) / (tau B) for each score of the student."""
    rng, tau = np.random.default_rng(0), 0.5
    told, taught = rng.normal(size=(2, 5, 4))
    p_s, p_t = (np.exp(one / tau) / np.exp(one / tau).sum(axis=1, keepdims=True) for one in (told, taught))
    given = torch.from_numpy(told).requires_grad_(True)
    loss = distillation(given, torch.from_numpy(taught), tau)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-(p_t * np.log(p_s)).sum() / 5, rel=1e-12)
    assert given.grad is not None
    np.testing.assert_allclose(given.grad.numpy(), (p_s - p_t) / (tau * 5), rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return drawn_images(tmp_path_factory.mktemp("images"))


def built(name: str, images: ImageSet) -> nn.Module:
    return method_of(RECIPES[name], images)


def method_of(recipe: Recipe, images: ImageSet) -> Any:
    before = {key: load_backbone(path)[0] for key, path in untrained_before(recipe, images).items()}
    every = images if recipe.pools.keys() == {"main"} else images.without_labels()
    pools = {"main": images, "all": every, "labelled": images.subset(range(12), "12")}
    return build_method(recipe, given_of({name: pools[name] for name in recipe.pools}, before))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", ["simclr_v2_distilled_mixed_10pct", "simclr_v2_distilled_labelled_10pct"])
def test_labels_and_teacher_are_weighed_as_in_the_formula(
    name: str, alpha: float, images: ImageSet, monkeypatch: pytest.MonkeyPatch
):
    """Equation 3 over the number of images, written out in float64. Student and teacher are random tables of scores,
    one row an image; of 48 images twelve have labels, or all that are there."""
    rng = np.random.default_rng(0)
    recipe = with_change(with_change(RECIPES[name], "method.alpha", alpha), "method.tau", tau := 0.5)
    method = method_of(recipe, images)
    scores = [torch.from_numpy(rng.normal(size=(len(images), CLASSES))) for _ in range(2)]
    student, teacher = (lambda pixels, table=table: table[pixels.flatten(1)[:, 0].long()] for table in scores)
    passes: list[int] = []  # images in each: labelled and others go together, for BatchNorm
    monkeypatch.setattr(method, "classify", lambda pixels: passes.append(len(pixels)) or student(pixels))
    monkeypatch.setattr(method, "taught", teacher)
    every, few = torch.arange(6), torch.tensor([3, 9])
    y = torch.tensor([2, 0])
    if mixed := "mixed" in name:
        batches = {"all": batch_of(every), "labelled": batch_of(few, y)}
        found = method.loss(replace(batches["all"], pools=batches))
    else:
        every = few
        found = method.loss(batch_of(few, y))

    assert passes == [8 if mixed else 2]
    told, taught = (log_softmax(table.numpy() / tau, axis=1)[every] for table in scores)
    labels = -log_softmax(scores[0].numpy(), axis=1)[few, y].mean()
    teachers = -(np.exp(taught) * told).sum(axis=1).mean()
    share = 12 / 48 if mixed else 1
    assert float(found) == pytest.approx((1 - alpha) * share * labels + alpha * teachers, rel=1e-9)


def batch_of(index: Tensor, labels: Tensor | None = None) -> Batch:
    """Pictures that say which image they are."""
    return Batch({"image": index.to(torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)}, index, 0, labels=labels)


@pytest.mark.parametrize("share", ["1pct", "10pct"])
@pytest.mark.parametrize("row", ["distilled", "distilled_mixed", "distilled_labelled", "labels"])
def test_students_take_equally_many_steps_at_desk_scale(row: str, share: str):
    desk = at_scale(PAPER[f"simclr_v2_{row}_{share}"], "desk")
    images = round(2000 * next(iter(desk.pools.values())).percent / 100)
    assert desk.length.steps(images // desk.batch_size) == 2480


@pytest.mark.parametrize("name", ["simclr_v2_10pct", "simclr_v2_distilled_10pct", "simclr_v2_labels_10pct"])
def test_the_classifier_is_a_player_that_is_not_adapted(name: str, images: ImageSet):
    method = built(name, images)
    recipe = replace(RECIPES[name], optimizers=PAPER[name].optimizers)
    players = build_players(method, recipe)  # type: ignore[arg-type]
    adapted = {p for one in players.values() for g in one.optimizer.param_groups if g["decays"] for p in g["params"]}
    assert adapted == {p for p in method.backbone.parameters() if p.ndim > 1}  # type: ignore[union-attr, operator]
    begins = [bool(p.any()) for p in method.classifier.parameters()]  # type: ignore[union-attr, operator]
    assert begins == [name != "simclr_v2_10pct", False]  # weights and biases


def test_the_teacher_stays_as_it_is_while_the_student_learns(images: ImageSet):
    method = built("simclr_v2_distilled_10pct", images).train()
    teacher: Backbone = method.teacher  # type: ignore[assignment]
    with torch.no_grad():
        teacher.head.weight.normal_()  # type: ignore[union-attr, operator]
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        taught = at_last_stage(teacher, as_input(teacher, pixels, torch.device("cpu")))
        told = method.classify(pixels)  # type: ignore[operator]
    loss = method.loss(Batch({"image": pixels}, torch.arange(4), seed=0))  # type: ignore[operator]
    loss.backward()
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert taught.std() > 0.01
    gap = told.softmax(dim=1) - taught.softmax(dim=1)
    gradient: Tensor = method.classifier.bias.grad  # type: ignore[union-attr, assignment]
    torch.testing.assert_close(gradient, gap.mean(dim=0), rtol=1e-3, atol=1e-5)


def test_what_cannot_be_fine_tuned_or_teach_is_told():
    plain = ResNet(width=0.0625).build(InputSpec(32))
    with pytest.raises(UserError, match=r"set --recipe\.backbone alike in both"):
        PAPER["simclr_v2_10pct"].method.build(plain, Given(8, 4, backbones={"pretrained": plain}))
    with pytest.raises(UserError, match="must end with classes"):
        Distilled().build(plain, Given(8, backbones={"teacher": plain}))
    with pytest.raises(UserError, match="classes"):
        WithClassifier(ResNet(), 0)
    teacher = WithClassifier(ResNet(width=0.0625), 3).build(InputSpec(32))
    with pytest.raises(UserError, match="of 4 classes and the teacher's of 3: use the same"):
        DistilledWithLabels().build(plain, Given(8, 4, backbones={"teacher": teacher}))
    pools = {"all": Known(8), "labelled": Known(4)}
    with pytest.raises(UserError, match="pool 'labelled' gives no labels"):
        DistilledWithLabels().build(plain, Given(8, pools=pools, backbones={"teacher": teacher}))


def trained(name: str, images: ImageSet, folder: Path, after: dict[str, Path]) -> Path:
    recipe: Recipe = replace(RECIPES[name], length=Steps(1))
    return pretrain(recipe, name, images, folder / name, on_cpu(), after)


def test_a_student_names_the_classes_that_its_teacher_was_taught(images: ImageSet, tmp_path: Path):
    first = trained("simclr_v2_2x_sk", images, tmp_path, {})
    teacher = trained("simclr_v2_10pct", images, tmp_path, {"pretrained": first})
    assert load_backbone(teacher)[0].stages["classes"].channels == CLASSES
    student = trained("simclr_v2_distilled_10pct", images, tmp_path, {"teacher": teacher})
    method = load_method(student.with_name("method.safetensors"), Distilled)
    assert method.classes == ("a", "b", "c", "d")
    assert method.method.classify(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, CLASSES)
