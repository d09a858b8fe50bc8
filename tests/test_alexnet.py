"""AlexNets, RotNet with all four rotations, its probe on every layer, and cards that say which backbones they take."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import alexnet

from benchmark import cli
from benchmark.backbones import architectures
from benchmark.backbones.alexnet import (
    CAFFENET,
    CONTEXT_FREE,
    CONTEXT_PREDICTION,
    DEEPCLUSTER,
    ROTNET,
    AlexNet,
)
from benchmark.backbones.contract import Backbone, Stage
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.split_alexnet import SPLIT_BRAIN
from benchmark.backbones.weights import load_backbone, save_backbone
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.data.datasets import open_dataset
from benchmark.engine.train import Machine, build_method
from benchmark.recipe import BGR, Given, InputSpec, Sobel
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Architecture
from benchmark.recipe.scales import at_scale
from benchmark.runs.reproduce import RowWork
from benchmark.runs.run import Run
from benchmark.runs.scoring import score
from benchmark.tables.layout import read_layouts
from benchmark.toyland import build_world
from benchmark.transfers import find_transfers
from benchmark.transfers.contract import Context
from benchmark.transfers.features import GOYAL_TAPS, extract, output_tap, tapped
from benchmark.transfers.linear import Heads, LinearTransfer
from benchmark.transfers.linear_alexnet import GIDARIS_TAPS
from benchmark.transfers.preprocessing import centre_crop, place_and_flip

IMAGENET = 1_281_167
IDS = ["rotnet", "deepcluster", "caffenet"]
ALL = pytest.mark.parametrize("architecture", [ROTNET, DEEPCLUSTER, CAFFENET], ids=IDS)
CPU = Machine(torch.device("cpu"), 0)
TRANSFERS = find_transfers()
RECIPES = find_recipes()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"), "smoke", datasets=("imagenet",), progress=False)


def shapes_only(architecture: AlexNet, spec: InputSpec) -> Backbone:
    """At its full size, without memory or time for numbers."""
    with torch.device("meta"):
        return architecture.build(spec).eval()


def small(architecture: Architecture = ROTNET, size: int = 64) -> Backbone:
    torch.manual_seed(0)
    return replace(architecture, width=1 / 16).build(InputSpec(size)).eval()  # type: ignore[call-arg]


def context(data: Path, workspace: Path) -> Context:
    return Context(data, "smoke", 0, workspace, torch.device("cpu"), 0, lambda *_: None)


def parameters(backbone: nn.Module) -> int:
    return sum(p.numel() for p in backbone.parameters())


# The networks


def test_rotnets_parameters_are_torchvisions_convolutions_and_its_own_rest():
    with torch.device("meta"):
        convolutions = parameters(alexnet().features)
    norms = 2 * (64 + 192 + 384 + 256 + 256) + 2 * (4096 + 4096)
    backbone = shapes_only(ROTNET, InputSpec(224))
    assert parameters(backbone) == convolutions + norms + 9216 * 4096 + 4096 * 4096


def test_deepclusters_parameters_are_those_of_its_layers_written_out():
    by_hand = [
        *(nn.Conv2d(2, 96, 11, device="meta"), nn.BatchNorm2d(96, device="meta")),
        *(nn.Conv2d(96, 256, 5, device="meta"), nn.BatchNorm2d(256, device="meta")),
        *(nn.Conv2d(256, 384, 3, device="meta"), nn.BatchNorm2d(384, device="meta")),
        *(nn.Conv2d(384, 384, 3, device="meta"), nn.BatchNorm2d(384, device="meta")),
        *(nn.Conv2d(384, 256, 3, device="meta"), nn.BatchNorm2d(256, device="meta")),
        *(nn.Linear(256 * 6 * 6, 4096, device="meta"), nn.Linear(4096, 4096, device="meta")),
    ]
    assert parameters(shapes_only(DEEPCLUSTER, InputSpec(224, Sobel()))) == sum(map(parameters, by_hand))


@pytest.mark.parametrize("size", [227, 224])
def test_caffenet_has_the_sixty_million_parameters_of_the_reference(size: int):
    head = 4096 * 1000 + 1000
    assert parameters(shapes_only(CAFFENET, InputSpec(size))) + head == 60_965_224


@pytest.mark.parametrize(
    ("architecture", "spec", "maps"),
    [
        (ROTNET, InputSpec(224), [(64, 55), (192, 27), (384, 13), (256, 13), (256, 13)]),
        (DEEPCLUSTER, InputSpec(224, Sobel()), [(96, 55), (256, 27), (384, 13), (384, 13), (256, 13)]),
        (CAFFENET, InputSpec(227), [(96, 55), (256, 27), (384, 13), (384, 13), (256, 13)]),
    ],
    ids=IDS,
)
def test_maps_have_the_papers_shapes(architecture: AlexNet, spec: InputSpec, maps: list[tuple[int, int]]):
    x = torch.zeros(2, spec.channels, spec.size, spec.size, device="meta")
    found = {name: tuple(y.shape) for name, y in shapes_only(architecture, spec).forward_stages(x).items()}
    wanted = {f"conv{number}": (2, channels, side, side) for number, (channels, side) in enumerate(maps, start=1)}
    assert found == {**wanted, "fc6": (2, 4096), "fc7": (2, 4096)}


@ALL
@pytest.mark.parametrize("size", [64, 32])
@pytest.mark.parametrize("width", [0.25, 0.0625])
def test_every_stage_has_a_cell_on_small_images(architecture: AlexNet, size: int, width: float):
    backbone = replace(architecture, width=width).build(InputSpec(size)).eval()
    maps = backbone.forward_stages(torch.randn(2, 3, size, size))
    assert list(maps) == list(backbone.stages)
    for name, stage in backbone.stages.items():
        assert maps[name].shape[:2] == (2, stage.channels)
        assert maps[name].numel() > 0
        assert maps[name].std() > 0, f"{name} is dead"
    assert backbone.out_channels == round(4096 * width)
    x = torch.zeros(2, 3, size, size)
    assert torch.equal(backbone(x), backbone.forward_stages(x)["fc7"])
    assert list(backbone.forward_stages(x, "conv3")) == ["conv1", "conv2", "conv3"]


def test_rotnets_convolutions_compute_what_torchvisions_do():
    """BatchNorm that has seen nothing divides by sqrt(1 + 1e-5) alone."""
    backbone, theirs = ROTNET.build(InputSpec(96)).eval(), alexnet().features.eval()
    for name, index in zip(("conv1", "conv2", "conv3", "conv4", "conv5"), (0, 3, 6, 8, 10), strict=True):
        ours = next(m for m in backbone.get_submodule(f"layers.{name}") if isinstance(m, nn.Conv2d))
        ours.load_state_dict(theirs[index].state_dict())
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        maps, y = backbone.forward_stages(x), x
        for index, layer in enumerate(theirs):
            y = layer(y)
            if index in (1, 4, 7, 9, 11):  # its ReLUs
                name = f"conv{(1, 4, 7, 9, 11).index(index) + 1}"
                torch.testing.assert_close(maps[name], y, rtol=1e-3, atol=1e-4)


def _weighted(backbone: Backbone) -> list[tuple[str, nn.Conv2d | nn.Linear]]:
    layers = backbone.get_submodule("layers").named_children()
    return [(name, m) for name, layer in layers for m in layer if isinstance(m, nn.Conv2d | nn.Linear)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [1.0, 0.25])
def test_caffes_initial_weights(width: float):
    torch.manual_seed(0)
    layers = dict(_weighted(replace(CAFFENET, width=width).build(InputSpec(227))))
    ones = {name for name, layer in layers.items() if layer.bias is not None and (layer.bias == 1).all()}
    zeros = {name for name, layer in layers.items() if layer.bias is not None and (layer.bias == 0).all()}
    assert (ones, zeros) == ({"conv2", "conv4", "conv5", "fc6", "fc7"}, {"conv1", "conv3"})
    narrow = 1 / math.sqrt(width)  # fewer inputs, larger weights: sums as large as at full width
    for name, layer in layers.items():
        std = {"conv1": 0.01, "fc6": 0.005 * narrow, "fc7": 0.005 * narrow}.get(name, 0.01 * narrow)
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05), name


def test_deepclusters_initial_weights():
    torch.manual_seed(0)
    layers = dict(_weighted(DEEPCLUSTER.build(InputSpec(224, Sobel()))))
    for name, layer in layers.items():
        assert layer.bias is not None
        assert not layer.bias.any()
        filters = layer.weight.shape[0] * layer.weight[0, 0].numel()
        std = 0.01 if name.startswith("fc") else math.sqrt(2 / filters)
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05), name


def test_dropout_stands_where_each_paper_has_it():
    def order(architecture: AlexNet) -> str:
        backbone = shapes_only(architecture, InputSpec(224))
        kinds = [type(m).__name__[0] for name in ("fc6", "fc7") for m in backbone.get_submodule(f"layers.{name}")]  # type: ignore[union-attr]
        return "".join(kinds)  # _ is the pool, F(latten), D(ropout), L(inear), B(atchNorm), R(eLU)

    assert order(ROTNET) == "_FLBRLBR"
    assert order(DEEPCLUSTER) == "_FDLRDLR"
    assert order(CAFFENET) == "_FLRDLRD"


@ALL
def test_group_norm_makes_rows_independent_of_their_batch(architecture: AlexNet):
    torch.manual_seed(0)
    backbone = replace(architecture, norm="group", dropout="none", width=0.0625).build(InputSpec(64)).train()
    x = torch.randn(4, 3, 64, 64)
    torch.testing.assert_close(backbone(x)[:2], backbone(x[:2]))


@ALL
def test_a_file_gives_back_the_same_network(architecture: AlexNet, tmp_path: Path):
    backbone = small(architecture)
    save_backbone(tmp_path / "b.safetensors", backbone, {})
    again, facts = load_backbone(tmp_path / "b.safetensors")
    assert again.architecture == backbone.architecture
    assert facts["stages"]["fc7"] == {"channels": 256, "stride": None}
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(again(x), backbone(x))


def test_what_cannot_be_built_says_why():
    with pytest.raises(UserError, match=r"input\.size 6 is too small"):
        ROTNET.build(InputSpec(6))
    with pytest.raises(UserError, match="width must be more than 0"):
        replace(ROTNET, width=0.0)
    with pytest.raises(UserError, match="groups must be at least 1"):
        replace(ROTNET, groups=0)


# The recipe


class Recorder(Backbone):
    """Gives each image's mean of its top left quarter, and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__(Architecture(), InputSpec(8))
        self.stages = {"corner": Stage(1, None)}
        self.seen = torch.zeros(0)

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        self.seen = x
        return {"corner": x[:, :, :4, :4].mean(dim=(1, 2, 3))[:, None]}


def test_all_four_rotations_of_every_image_are_in_the_batch():
    recipe = RECIPES["rotation_alexnet"]
    torch.manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    method = recipe.method.build(Recorder(), Given(3))
    loss = method.loss(Batch({"X": images}, torch.arange(3), seed=0))
    prepared = InputSpec(8).prepare(images).numpy()
    turned = [[np.rot90(image, y, axes=(1, 2)) for y in range(4)] for image in prepared]  # [image][turn]
    seen = {row.numpy().tobytes() for row in method.backbone.seen}
    assert seen == {np.ascontiguousarray(row).tobytes() for rows in turned for row in rows}
    assert len(method.backbone.seen) == 12

    weight, bias = (p.detach().numpy()[..., 0] if p.ndim == 2 else p.detach().numpy() for p in method.fc.parameters())
    logits = np.array([[weight * row[:, :4, :4].mean() + bias for row in rows] for rows in turned])  # (3, 4 turns, 4)
    log_f = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    by_hand = -np.mean([[log_f[i, y, y] for y in range(4)] for i in range(3)])
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)


def test_the_recipes_rates_at_every_milestone():
    recipe = RECIPES["rotation_alexnet"]
    steps_per_epoch = IMAGENET // 192
    total = recipe.length.steps(steps_per_epoch)
    assert (steps_per_epoch, total) == (6672, 200_160)
    optimizer, schedule = recipe.optimizers["main"], recipe.schedule_of("main")
    steps = (0, 66_719, 66_720, 133_439, 133_440, 200_159)
    rates = [optimizer.lr * schedule.factor(step, total, 6672) for step in steps]
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4])
    assert optimizer.arguments() == {"lr": 0.01, "momentum": 0.9, "nesterov": True, "fused": True}
    assert (optimizer.weight_decay, optimizer.decays) == (5e-4, "all")


def test_the_recipe_trains_rotnets_network():
    paper, desk = RECIPES["rotation_alexnet"], at_scale(RECIPES["rotation_alexnet"], "desk")
    assert replace(paper.backbone, over="process") == ROTNET  # type: ignore[type-var]
    assert paper.input == InputSpec(224)
    assert desk.backbone == replace(ROTNET, over="all", width=0.25)
    assert paper.method.views(Image.new("RGB", (500, 375)), paper.input)["X"].shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("name", "architecture", "spec", "dataset"),
    [
        ("random_init_alexnet", ROTNET, InputSpec(224), "imagenet"),
        ("random_alexnet", CAFFENET, InputSpec(227, BGR()), "imagenet"),
        ("supervised_alexnet", CAFFENET, InputSpec(227, BGR()), "imagenet"),
        ("supervised_places", CAFFENET, InputSpec(227, BGR()), "places205"),
        ("npid_alexnet", DEEPCLUSTER, InputSpec(224), "imagenet"),
        ("deepcluster", replace(DEEPCLUSTER, over="all"), InputSpec(224, Sobel()), "imagenet"),
        ("context_prediction", replace(CONTEXT_PREDICTION, over="all"), InputSpec(96, BGR()), "imagenet"),
        ("jigsaw_alexnet", CONTEXT_FREE, InputSpec(64, BGR()), "imagenet"),
        ("jigsaw_pp", CONTEXT_FREE, InputSpec(64, BGR()), "imagenet"),
        ("cc_jigsaw_pp", CAFFENET, InputSpec(227, BGR()), "imagenet"),
    ],
)
def test_each_row_has_the_network_of_its_paper(name: str, architecture: AlexNet, spec: InputSpec, dataset: str):
    recipe = RECIPES[name]
    assert (recipe.backbone, recipe.input) == (architecture, spec)
    (pool,) = recipe.pools.values()
    assert (pool.dataset, pool.labels) == (dataset, name.startswith("supervised"))


# The probe


def test_taps_have_the_papers_dimensions_and_are_adaptive_max_pools():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 224, 224)
    full = shapes_only(ROTNET, InputSpec(224))
    numbers = {name: y[0].numel() for name, y in tapped(full, GIDARIS_TAPS, x.to("meta")).items()}
    assert numbers == {"conv1": 9216, "conv2": 9408, "conv3": 9600, "conv4": 9216, "conv5": 9216}
    narrow = small(size=224)
    maps, found = narrow.forward_stages(x), tapped(narrow, GIDARIS_TAPS, x)
    for (name, y), cells in zip(found.items(), (12, 7, 5, 6, 6), strict=True):
        torch.testing.assert_close(y, nn.AdaptiveMaxPool2d(cells)(maps[name]))


def test_small_images_get_cells_of_as_many_pixels():
    found = tapped(small(), GIDARIS_TAPS, torch.randn(1, 3, 64, 64))
    assert [y.shape[-1] for y in found.values()] == [3, 2, 1, 1, 1]


def test_the_probe_stops_below_the_fully_connected_layers():
    backbone = small()
    before = backbone.forward_stages
    asked: list[str | None] = []
    backbone.forward_stages = lambda x, upto=None: asked.append(upto) or before(x, upto)  # type: ignore[method-assign, func-returns-value]
    tapped(backbone, GIDARIS_TAPS, torch.randn(1, 3, 64, 64))
    assert asked == ["conv5"]


def test_the_probes_rates_at_every_milestone():
    transfer = TRANSFERS["linear_imagenet_gidaris"]
    assert isinstance(transfer, LinearTransfer)
    probe = transfer.values["paper"]
    (optimizer,) = probe.optimizers
    course = probe.course
    assert (course.batch(IMAGENET), course.steps_total(IMAGENET)) == (192, 35 * 6672)
    for epoch, before, after in ((5, 1e-2, 2e-3), (15, 2e-3, 4e-4), (25, 4e-4, 8e-5)):
        assert optimizer.lr * course.factor(epoch * 6672 - 1, IMAGENET) == pytest.approx(before)
        assert optimizer.lr * course.factor(epoch * 6672, IMAGENET) == pytest.approx(after)
    assert optimizer.lr * course.factor(35 * 6672 - 1, IMAGENET) == pytest.approx(8e-5)
    assert (optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.9, True, 5e-4)
    assert (probe.held_out, probe.views, probe.track_every) == (0, None, None)
    desk = transfer.values["desk"].course
    rates = [desk.factor(round(1000 * part), 64 * 25) for part in (0, 1 / 7 + 0.01, 3 / 7 + 0.01, 5 / 7 + 0.01)]
    assert rates == pytest.approx([1, 0.2, 0.04, 0.008])


def test_the_probes_heads_begin_as_in_the_released_code():
    transfer = TRANSFERS["linear_imagenet_gidaris"]
    assert isinstance(transfer, LinearTransfer)
    heads = Heads({"conv1": torch.zeros(2, 16, 12, 12)}, 1000, transfer.values["paper"], seed=0, choosing=1)
    (linear,) = heads.linears["conv1"]  # type: ignore[misc]
    assert linear.weight.std().item() == pytest.approx(math.sqrt(2 / 1000), rel=0.01)
    assert not linear.bias.any()
    assert [key for key in heads.norms.state_dict() if "weight" in key] == []  # no scale, no shift


def test_training_crops_of_the_probe_change_no_scale():
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    places = set()
    for _ in range(8):
        found = place_and_flip(224)(Image.fromarray(pixels))["image"].permute(1, 2, 0).numpy()
        where = [
            (y, x, mirrored)
            for mirrored, crop in ((False, found), (True, found[:, ::-1]))
            for y, x in np.argwhere((pixels[:33, :33] == crop[0, 0]).all(axis=2)).tolist()
            if np.array_equal(pixels[y : y + 224, x : x + 224], crop)
        ]
        assert len(where) == 1
        places.add(where[0])
    assert len(places) > 4
    assert {mirrored for *_, mirrored in places} == {True, False}
    assert place_and_flip(64)(Image.new("RGB", (300, 200)))["image"].shape == (3, 64, 64)


def test_neighbours_are_sought_by_the_output(world: Path, tmp_path: Path):
    backbone = small()
    images = open_dataset(world, "imagenet", "val")
    tap = output_tap(backbone)
    found = extract(backbone, images, centre_crop(64), (tap,), context(world, tmp_path))
    assert (tap.stage, tap.name) == ("fc7", "fc7")
    x = backbone.input.prepare(torch.stack([centre_crop(64)(images.open(i))["image"] for i in range(len(images))]))
    with torch.no_grad():
        np.testing.assert_allclose(found["fc7"], backbone(x), rtol=1e-3, atol=1e-4)
    assert output_tap(small(ResNet())).name == "res5_average"


# Which backbones a card takes


class Odd(Backbone):
    """Has no stage that a protocol could know."""

    def __init__(self) -> None:
        super().__init__(Architecture(), InputSpec(32))
        self.stages = {"code": Stage(5, None)}
        self.linear = nn.Linear(3 * 32 * 32, 5)

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        return {"code": self.linear(x.flatten(1))}


ANY = [name for name, transfer in TRANSFERS.items() if not transfer.card.takes and not transfer.card.asks]


@pytest.mark.parametrize("name", ANY)
def test_a_card_that_takes_any_backbone_does(name: str, world: Path, tmp_path: Path):
    torch.manual_seed(0)
    scores = TRANSFERS[name].run(Odd().eval(), context(world, tmp_path))
    assert scores.metrics.keys() == TRANSFERS[name].card.metrics.keys()


@pytest.mark.parametrize("name", list(TRANSFERS))
def test_a_card_names_architectures_that_there_are(name: str):
    assert set(TRANSFERS[name].card.takes) <= set(architectures())


def test_no_grid_is_improvised_for_stages_that_a_protocol_does_not_know():
    with pytest.raises(UserError, match="there is no stage res2 in AlexNetwork"):
        tapped(small(), GOYAL_TAPS, torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("architecture", "refused", "told"),
    [
        (
            ROTNET,
            "linear_imagenet_pirl",
            "linear_imagenet_pirl is made for the stages of ResNet or ResNeXt or SplitResNet or",
        ),
        (ROTNET, "voc07_svm_goyal", "not of AlexNet"),
        (ROTNET, "voc0712_det_c4_pirl", "not of AlexNet"),
        (ROTNET, "voc12_seg_fcn_moco", "not of AlexNet"),
        (ResNet(), "voc07_cls_krahenbuhl", "is made for the stages of AlexNet, not of ResNet"),
        (ResNet(), "voc07_cls_fc6_8_krahenbuhl", "not of ResNet"),
        (ResNet(), "voc12_seg_fcn32s", "not of ResNet"),
        (SPLIT_BRAIN, "voc07_cls_krahenbuhl", "not of SplitAlexNet"),
        (
            ResNet(),
            "linear_imagenet_gidaris",
            "is made for the stages of AlexNet or SplitAlexNet or Descriptors, not of ResNet",
        ),
    ],
)
def test_others_are_refused_before_any_work(architecture: Architecture, refused: str, told: str, tmp_path: Path):
    run = Run("mine", "smoke", 0, tmp_path / "no data at all", tmp_path / "runs")
    save_backbone(run.backbone, small(architecture), {"recipe_hash": "h", "resolved": {}})
    with pytest.raises(UserError, match=told):
        score(TRANSFERS[refused], run, CPU)
    assert [path.name for path in run.folder.iterdir()] == ["backbone.safetensors"]


def test_the_command_refuses_before_the_first_of_several_transfers(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = Run("mine", "smoke", 0, world, tmp_path)
    save_backbone(run.backbone, small(), {"recipe_hash": "h", "resolved": {}})
    options = ["--scale", "smoke", "--data", str(world), "--runs", str(tmp_path), "--device", "cpu"]
    assert cli.run(["transfer", "mine", "knn_imagenet_wu", "linear_imagenet_pirl", *options]) == 2
    assert "linear_imagenet_pirl is made for the stages of ResNet" in capsys.readouterr().err
    assert not list(run.folder.glob("*.json"))


def test_reproduce_sends_no_row_to_a_protocol_that_refuses_it(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    row = RowWork(("linear_imagenet_pirl", "knn_imagenet_wu", "linear_imagenet_gidaris"), CPU)
    steps = row(Run("random_init_alexnet", "smoke", 0, world, tmp_path))
    assert steps.failures == {}
    assert {title.split()[-1] for title in steps.seconds} == {"pretrain", "knn_imagenet_wu", "linear_imagenet_gidaris"}
    assert "transfer to linear_imagenet_pirl: left out" in capsys.readouterr().out
    assert steps.done == steps.total == 4


@pytest.mark.parametrize("layout", read_layouts(), ids=lambda layout: layout.key)
def test_a_tables_columns_take_its_rows(layout):
    rows = {row.recipe for row in layout.rows if row.recipe}
    transfers = {column.transfer for column in layout.columns if column.transfer}
    for transfer in transfers:
        card = TRANSFERS[transfer].card
        for name in (*rows, *layout.references):
            if card.refusal(type(RECIPES[name].backbone).__name__, card.asks):  # a run may leave more than its backbone
                left = build_method(at_scale(RECIPES[name], "smoke"), Given(8, 4)).export()
                assert card.refusal(type(left.architecture).__name__, card.asks) == ""


def test_the_whole_way_at_smoke_scale_leaves_the_numbers_in_the_table(world: Path, tmp_path: Path):
    row = RowWork(("linear_imagenet_gidaris",), CPU)
    assert row(Run("rotation_alexnet", "smoke", 0, world, tmp_path)).failures == {}
    options = ["--scale", "smoke", "--data", str(world), "--runs", str(tmp_path)]
    assert cli.run(["tables", *options]) == 0
    text = (tmp_path / "smoke/tables/rotnet_imagenet.md").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("| RotNet"))
    assert line.count("(1)") == 5  # one seed, five layers
