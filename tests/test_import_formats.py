"""Files of other projects come in as they are: the network here computes what theirs computes, bit for bit; and what
is none of our networks is told by name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from foreign_networks import (
    FOREIGN,
    DeepClusterAlexNet,
    Foreign,
    bare,
    below,
    lightning,
    of_deepcluster,
    of_lightly,
    of_moco,
    of_openselfsup,
    of_pycontrast,
    of_rotnet,
    of_simclr_converter,
    of_solo_learn,
    of_vissl,
    resnet,
)
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.resnext import ResNeXt
from benchmark.core.errors import UserError
from benchmark.exchange import importing
from benchmark.exchange.contents import read_contents
from benchmark.exchange.contract import Place
from benchmark.exchange.formats import find_formats
from benchmark.exchange.importing import Wanted, import_backbone, parse_maps
from benchmark.exchange.libraries import find_libraries
from benchmark.exchange.resnets import resnet_of
from benchmark.recipe.inputs import RGB, InputSpec, Sobel
from benchmark.runs.naming import name_for_import

LAYERS = ("layer1", "layer2", "layer3", "layer4")


def saved(contents: Any, folder: Path, name: str = "weights.pth") -> Path:
    torch.save(contents, folder / name)
    return folder / name


def brought(contents: Any, folder: Path, **wanted: Any) -> tuple[Backbone, dict[str, Any]]:
    return import_backbone(saved(contents, folder), Wanted(**wanted))


def looked_at(backbone: Backbone, images: Tensor) -> Tensor:
    """(B, channels) of the last stage."""
    with torch.no_grad():
        last = next(reversed(backbone.stages))
        maps = backbone.forward_stages(backbone.input.prepare(images))[last]
        return maps.mean(dim=(2, 3)) if maps.ndim == 4 else maps


def pictures(side: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=generator)


def side_of(foreign: Foreign) -> int:
    return 64 if hasattr(foreign.network, "layer1") else 224  # fc6 takes images of that size alone


def test_every_format_has_a_file_here():
    assert FOREIGN.keys() == find_formats().keys()


@pytest.mark.parametrize("name", sorted(FOREIGN.keys() - {"simclr_converter", "deepcluster"}))
@pytest.mark.parametrize("asked", ["auto", "by name"])
def test_the_network_computes_what_the_projects_own_computes(name: str, asked: str, tmp_path: Path):
    foreign = FOREIGN[name]()
    backbone, origin = brought(foreign.contents, tmp_path, format="auto" if asked == "auto" else name)
    images = pictures(side_of(foreign))
    wanted = foreign.features(images)
    assert torch.equal(looked_at(backbone, images), wanted)
    assert wanted.std() > 0
    assert origin["format"] == name
    assert not backbone.training
    if foreign.dropped:
        assert any(foreign.dropped in one or one.partition(".*")[0] in foreign.dropped for one in origin["dropped"])


def test_converted_simclr_is_not_standardised(tmp_path: Path):
    """Its file and torchvision's in a `state_dict` are alike; the input is what differs."""
    foreign = of_simclr_converter()
    told = (
        r"fits several formats: simclr_converter, torchvision\. They differ in the input; .*--format simclr_converter"
    )
    with pytest.raises(UserError, match=told):
        brought(foreign.contents, tmp_path)
    backbone, origin = brought(foreign.contents, tmp_path, format="simclr_converter")
    assert backbone.input.colour == RGB((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert torch.equal(looked_at(backbone, pictures(64)), foreign.features(pictures(64)))
    assert isinstance(backbone.architecture, ResNet)
    assert backbone.architecture.width == 8 / 64
    assert origin["dropped"] == ["fc.weight", "fc.bias"]


def test_deepclusters_sobel_becomes_the_input(tmp_path: Path):
    """From the edges on it is the same to the bit. Grey is a convolution there and a mean here, which rounds
    otherwise."""
    foreign = of_deepcluster()
    backbone, _ = brought(foreign.contents, tmp_path)
    assert backbone.input.colour == Sobel()
    images = pictures(224)
    with torch.no_grad():
        edges = foreign.network.after_sobel(backbone.input.prepare(images))
    assert torch.equal(looked_at(backbone, images), edges)
    torch.testing.assert_close(edges, foreign.features(images), rtol=1e-4, atol=1e-5)


def test_deepcluster_without_sobel_sees_colours(tmp_path: Path):
    torch.manual_seed(0)
    network = DeepClusterAlexNet().eval()
    network.convolutions[0] = nn.Conv2d(3, 6, 11, 4, 2)
    state = {key: one for key, one in network.saved().items() if not key.startswith("sobel.")}
    backbone, _ = brought({"arch": "alexnet", "state_dict": state}, tmp_path)
    assert backbone.input.colour == RGB()
    with torch.no_grad():
        wanted = network.after_sobel(backbone.input.prepare(pictures(224)))
    assert torch.equal(looked_at(backbone, pictures(224)), wanted)


def other_forms() -> dict[str, tuple[str, dict[str, Any]]]:
    """Other forms of the same files: name -> (format, contents). The encoder of each is `resnet()`."""
    net = bare(resnet())
    return {
        "moco without DistributedDataParallel": ("moco", {"state_dict": below("encoder_q.", net)}),
        "vissl, converted": ("vissl", {"model_state_dict": below("_feature_blocks.", net)}),
        "vissl, flat": ("vissl", below("_feature_blocks.", net)),
        "pycontrast, momentum alone": ("pycontrast", {"model_ema": below("encoder.", net)}),
        "lightly by names": ("lightly", lightning(below("backbone.", net) | {"projection_head.w": torch.zeros(1)})),
        "old solo-learn": ("solo_learn", lightning(below("encoder.", net) | {"classifier.weight": torch.zeros(1)})),
        "openselfsup, extracted": ("openselfsup", {"state_dict": net, "author": "OpenSelfSup"}),
        "openselfsup's byol": ("openselfsup", {"meta": {}, "state_dict": below("online_net.0.", net)}),
        "openselfsup's moco": ("openselfsup", {"meta": {}, "state_dict": below("encoder_q.0.", net)}),
        "imagenet example": ("torchvision", {"epoch": 90, "arch": "resnet50", "state_dict": below("module.", net)}),
    }


@pytest.mark.parametrize("form", other_forms())
def test_other_forms_of_the_files(form: str, tmp_path: Path):
    name, contents = other_forms()[form]
    backbone, origin = brought(contents, tmp_path)
    assert origin["format"] == name
    assert torch.equal(looked_at(backbone, pictures(64)), Foreign({}, resnet()).features(pictures(64)))


def test_the_query_encoder_is_taken_and_not_its_momentum_copy(tmp_path: Path):
    for foreign in (of_moco(), of_pycontrast(), of_lightly(), of_solo_learn(), of_openselfsup()):
        backbone, _ = brought(foreign.contents, tmp_path)
        assert torch.equal(backbone.state_dict()["conv1.weight"], foreign.network.conv1.weight)


def test_safetensors_half_precision_and_no_counters(tmp_path: Path):
    network = resnet()
    state = {key: one.half() for key, one in bare(network).items() if not key.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "model.safetensors")
    backbone, origin = import_backbone(tmp_path / "model.safetensors", Wanted())
    assert {one.dtype for one in backbone.parameters()} == {torch.float32}
    assert origin["counters_filled"] == 53
    for key, one in state.items():
        assert torch.equal(backbone.state_dict()[key], one.float())


def test_blue_first_is_turned_round(tmp_path: Path):
    foreign = of_vissl()
    backbone, origin = brought(foreign.contents, tmp_path, bgr=True)
    turned = pictures(64).flip(1)  # what the network was trained on
    with torch.no_grad():
        prepared = RGB(RGB().mean[::-1], RGB().std[::-1]).prepare(turned)
        wanted = foreign.network.features(prepared)
    torch.testing.assert_close(looked_at(backbone, pictures(64)), wanted)
    assert origin["resolved"]["imported"]["bgr"] is True


def test_the_origin_says_where_it_came_from(tmp_path: Path):
    path = saved(of_moco().contents, tmp_path)
    _, origin = import_backbone(path, Wanted(size=96))
    assert origin["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (origin["file"], origin["format"]) == ("weights.pth", "moco")
    assert origin["resolved"]["imported"] == {"format": "moco", "sha256": origin["sha256"], "maps": {}, "bgr": False}
    assert origin["dropped"] == [
        *("module.encoder_q.fc.weight", "module.encoder_q.fc.bias", "encoder_k.* (320 tensors)"),
        *("module.queue", "module.queue_ptr", "optimizer.* (1 tensors)"),
    ]
    others = [import_backbone(path, Wanted(size=side))[1]["recipe_hash"] for side in (96, 224)]
    assert others[0] == origin["recipe_hash"] != others[1]


@pytest.mark.parametrize(
    ("make", "elsewhere"),
    [
        (of_pycontrast, ["model_ema.* (318 tensors)", "contrast.* (1 tensors)"]),
        (of_vissl, ["classy_state_dict.base_model.model.heads.* (1 tensors)"]),
    ],
)
def test_what_lies_elsewhere_in_the_file_is_told_too(make: Callable[[], Foreign], elsewhere: list[str], tmp_path: Path):
    assert brought(make().contents, tmp_path)[1]["dropped"][-len(elsewhere) :] == elsewhere


def test_what_lies_beside_a_flat_network_is_told_too(tmp_path: Path):
    """In dictionaries among the weights, wherever the format has the network."""
    beside = {
        "optimizer": {"state": {0: torch.zeros(3)}},
        "ema": {"conv1.weight": torch.zeros(1), "epoch": 3},
        "args": {},
    }
    told = ["optimizer.* (1 tensors)", "ema.* (1 tensors)"]
    network = resnet()
    _, flat = brought({**network.state_dict(), **beside}, tmp_path)
    assert flat["dropped"] == ["fc.weight", "fc.bias", *told]
    _, nested = brought({"epoch": 1, "state_dict": {**network.state_dict(), **beside}}, tmp_path)
    assert nested["dropped"] == ["fc.weight", "fc.bias", *(f"state_dict.{one}" for one in told)]


def test_the_hash_is_of_the_bytes_that_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another file may have taken the place since."""
    path = saved(bare(resnet()), tmp_path)
    wanted = hashlib.sha256(path.read_bytes()).hexdigest()

    def read_and_replaced(path: Path) -> Any:
        found = read_contents(path)
        path.write_bytes(b"another")
        return found

    monkeypatch.setattr(importing, "read_contents", read_and_replaced)
    assert import_backbone(path, Wanted())[1]["sha256"] == wanted


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: {"state_dict": bare(resnet())}, "openselfsup"),  # and torchvision
        (lambda: lightning(below("backbone.", bare(resnet()))), "lightly"),  # and solo_learn
    ],
)
def test_formats_that_give_the_same_need_no_name(make: Callable[[], dict[str, Any]], name: str, tmp_path: Path):
    contents = make()
    assert sum(form.fits(contents) for form in find_formats().values()) == 2
    backbone, origin = brought(contents, tmp_path)
    assert torch.equal(looked_at(backbone, pictures(64)), Foreign({}, resnet()).features(pictures(64)))
    assert (origin["format"], origin["dropped"]) == (name, [])


def test_formats_that_differ_in_more_than_the_input_are_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No two here do; a new one may."""
    other = replace(
        find_formats()["torchvision"], places=(Place((), "other."),), beside=("conv1", "bn1", "fc", *LAYERS)
    )
    ours = replace(find_formats()["torchvision"], beside=("other", "fc"))
    monkeypatch.setattr(importing, "find_formats", lambda: {"ours": ours, "other": other})
    contents = bare(resnet()) | below("other.", bare(resnet(seed=1)))
    with pytest.raises(UserError, match=r"ours, other\. They differ in the network and what is left out; say which"):
        brought(contents, tmp_path)


def test_a_layout_of_ones_own_is_mapped(tmp_path: Path):
    net = resnet()
    state = below("net.stem.", {key: one for key, one in bare(net).items() if not key.startswith("layer")})
    state |= below("net.body.", {key: one for key, one in bare(net).items() if key.startswith("layer")})
    contents = {"ours": {"weights": state}, "step": 3}
    with pytest.raises(UserError, match=r"of none of the formats .*ours\.weights\.net\.stem\.conv1\.weight.*--map"):
        brought(contents, tmp_path)
    maps = parse_maps(["ours.weights.net.stem.=", "ours.weights.net.body.="])
    backbone, origin = brought(contents, tmp_path, maps=maps)
    assert torch.equal(looked_at(backbone, pictures(64)), Foreign({}, net).features(pictures(64)))
    assert origin["format"] == "mapped"
    assert origin["resolved"]["imported"]["maps"] == dict(maps)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing"], "--map takes PREFIX=NEW"),
        (["=x"], "--map takes PREFIX=NEW"),
        (["absent.="], r"--map absent.=: no key of .* begins so; its first: conv1.weight"),
        (["conv1.=conv1.", "conv1.=conv1."], "is there already, by another --map"),
        (["conv1.=stem."], "it has no conv1.weight"),
    ],
)
def test_maps_that_lead_nowhere(words: list[str], told: str, tmp_path: Path):
    with pytest.raises(UserError, match=told):
        brought(bare(resnet()), tmp_path, maps=parse_maps(words))


def with_stem(weight: Tensor) -> dict[str, Tensor]:
    return bare(resnet()) | {"conv1.weight": weight}


def basic_blocks() -> dict[str, Tensor]:
    torch.manual_seed(0)
    block = nn.Sequential(BasicBlock(4, 4))
    return {"conv1.weight": torch.zeros(4, 3, 7, 7)} | below("layer1.", block.state_dict())


def deep_stem() -> dict[str, Tensor]:
    state = {key: one for key, one in bare(resnet()).items() if key != "conv1.weight"}
    return {"conv1.0.weight": torch.zeros(2, 3, 3, 3), **state}


def split_state() -> dict[str, Any]:
    return {"model": {"module.encoder1.conv1.weight": torch.zeros(4, 1, 7, 7)}, "model_ema": {}}


def vgg() -> dict[str, Any]:
    state = {"features.module.0.weight": torch.zeros(64, 2, 3, 3), "top_layer.weight": torch.zeros(2, 2)}
    return {"arch": "vgg16", "state_dict": state}


def other_sobel() -> dict[str, Any]:
    contents = of_deepcluster().contents
    contents["state_dict"]["sobel.1.weight"] = 2 * contents["state_dict"]["sobel.1.weight"]
    return contents


def network_in_network() -> dict[str, Any]:
    return {"network": {"_feature_blocks.0.Block1_ConvB1.layers.Conv.weight": torch.zeros(192, 3, 5, 5)}}


def without_a_layer() -> dict[str, Any]:
    contents = of_rotnet().contents
    contents["network"] = {key: one for key, one in contents["network"].items() if "blocks.8.4" not in key}
    return contents


def grouped(within: int = 2) -> dict[str, Tensor]:
    return bare(resnet()) | {"layer1.0.conv2.weight": torch.zeros(4, within, 3, 3)}


def with_more() -> dict[str, Tensor]:
    return bare(resnet()) | {"layer1.0.se.fc1.weight": torch.zeros(4)}


def hollow(network: nn.Module) -> dict[str, Tensor]:
    """As large as one likes, in a file of a few bytes."""
    return {key: one if "num_" in key else torch.zeros(1).expand(one.shape) for key, one in bare(network).items()}


def one_for_all() -> dict[str, Tensor]:
    """Half precision becomes fp32, each name for itself."""
    shared = torch.zeros(1 << 10).half()
    return bare(resnet()) | {f"layer4.2.more{number}": shared for number in range(9)}


def wild() -> dict[str, Tensor]:
    return with_stem(torch.full((4, 3, 7, 7), float("nan")))


REFUSED: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "CMC": (split_state, "cannot be imported: pycontrast: CMC of PyContrast, whose two encoders look at YDbDr"),
    "SimCLR v2": (lambda: {"resnet": {"net.0.0.weight": torch.zeros(1)}, "head": {}}, "simclr_converter: SimCLR v2"),
    "VGG-16": (vgg, "deepcluster: DeepCluster's vgg16, which is not among the networks here"),
    "another sobel": (other_sobel, r"its sobel\.\* are not Sobel's filters"),
    "NIN": (network_in_network, "rotnet: RotNet's Network in Network"),
    "half an AlexNet": (without_a_layer, r"not this AlexNet: it has no 8\.4"),
    "CIFAR": (
        lambda: lightning(below("backbone.", with_stem(torch.zeros(4, 3, 3, 3)))),
        "conv1 is 3 x 3, the stem for",
    ),
    "timm -d": (deep_stem, r"its stem is three convolutions \(timm's -d"),
    "wide_resnet50_2": (lambda: bare(resnet(inner=128)), "blocks are 8 channels wide inside where its stem has 4"),
    "a ResNeXt's first block": (grouped, "does not fit AggregatedNetwork"),
    "no groups": (lambda: grouped(3), "see 3 of 4 channels, which make no groups"),
    "empty groups": (lambda: grouped(0), "see 0 of 4 channels, which make no groups"),
    "ResNet-18": (basic_blocks, r"of basic blocks \(ResNet-18 and -34\)"),
    "two channels": (lambda: with_stem(torch.zeros(4, 2, 7, 7)), "conv1 takes 2 channels, not 3"),
    "another depth": (lambda: bare(resnet(blocks=(2, 1, 1, 1))), r"stages have \(2, 1, 1, 1\) blocks"),
    "SE-ResNet": (with_more, r"does not fit ResidualNetwork: 1 unexpected: layer1\.0\.se\.fc1\.weight"),
    "a bomb": (lambda: hollow(resnet()), r"conv1\.weight claims more numbers than are stored"),
    "one tensor under many names": (one_for_all, r"layer4\.2\.more1 claims more numbers than are stored"),
    "no convolution": (lambda: with_stem(torch.zeros(4)), "which is no convolution of images"),
    "not finite": (wild, r"not finite: conv1\.weight"),
    "no tensors": (lambda: {"epoch": 3}, "holds no tensor under a name"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_none_of_our_networks_is_told_by_name(what: str, tmp_path: Path):
    make, told = REFUSED[what]
    with pytest.raises(UserError, match=told) as error:
        brought(make(), tmp_path)
    assert "weights.pth" in str(error.value)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: timm.create_model("resnet50d"), "its stem is three convolutions"),
        (lambda: models.wide_resnet50_2(), "blocks are 128 channels wide inside where its stem has 64"),
        (lambda: models.resnet34(), "of basic blocks"),
    ],
)
def test_the_libraries_own_networks_that_are_none_of_ours(make: Callable[[], nn.Module], told: str):
    with torch.device("meta"):
        state = make().state_dict()
    with pytest.raises(UserError, match=told):
        resnet_of(state, Path("x"))


@pytest.mark.parametrize(
    ("make", "ours"),
    [
        *(
            (getattr(library, f"resnet{n}"), ResNet(depth=n))
            for library in (models, timm.models)
            for n in (50, 101, 152)
        ),
        (models.resnext50_32x4d, ResNeXt(group_width=4)),
        (models.resnext101_32x8d, ResNeXt(depth=101)),
        (models.resnext101_64x4d, ResNeXt(depth=101, groups=64, group_width=4)),
        (timm.models.resnext50_32x4d, ResNeXt(group_width=4)),
    ],
)
def test_the_libraries_own_networks_that_are_ours(make: Callable[[], nn.Module], ours: ResNet):
    with torch.device("meta"):
        architecture, weights = resnet_of(make().state_dict(), Path("x"))
        wanted = architecture.build(InputSpec()).state_dict()
    assert architecture == ours
    assert {key: one.shape for key, one in weights.items()} == {key: one.shape for key, one in wanted.items()}


@pytest.mark.parametrize("name", ["lightly", "solo_learn"])
def test_the_stem_for_small_images_is_refused(name: str, tmp_path: Path):
    """Its shapes would fit after a silent resize; its features would not."""
    contents = lightning(below("backbone.", with_stem(torch.zeros(4, 3, 3, 3))))
    with pytest.raises(UserError, match=r"conv1 is 3 x 3, the stem for small images as of CIFAR"):
        brought(contents, tmp_path, format=name)


def test_colours_that_cannot_be_turned(tmp_path: Path):
    with pytest.raises(UserError, match=r"--bgr: .* is of Sobel"):
        brought(of_deepcluster().contents, tmp_path, bgr=True)


def test_a_format_that_does_not_exist_or_does_not_fit(tmp_path: Path):
    with pytest.raises(UserError, match=r"--format mocco: .*did you mean moco.*known: deepcluster, lightly"):
        brought(of_moco().contents, tmp_path, format="mocco")
    with pytest.raises(UserError, match=re.escape("not of format vissl. Its first keys: state_dict.module.encoder_q.")):
        brought(of_moco().contents, tmp_path, format="vissl")


def test_what_a_project_does_not_have_is_left_out_only_when_asked_to(tmp_path: Path):
    contents = lightning(below("backbone.", bare(resnet())) | {"secret_head.weight": torch.zeros(1)})
    with pytest.raises(UserError, match=r"of none of the formats .*--format lightly takes it all the same"):
        brought(contents, tmp_path)
    _, origin = brought(contents, tmp_path, format="lightly")
    assert origin["dropped"] == ["secret_head.weight"]


def test_an_input_of_another_size(tmp_path: Path):
    backbone, _ = brought(bare(resnet()), tmp_path, size=96)
    assert backbone.input == InputSpec(96)
    with pytest.raises(UserError, match="size must be at least 1"):
        brought(bare(resnet()), tmp_path, size=0)


DOCUMENTS = {name: (Path(__file__).parents[1] / name).read_text() for name in ("docs/importing.md", "README.md")}


def test_the_documentation_has_every_format_and_whose_files_it_reads():
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", DOCUMENTS["docs/importing.md"], re.MULTILINE))
    assert rows == {name: form.title for name, form in find_formats().items()}


def test_the_documentation_has_every_library():
    told = DOCUMENTS["docs/importing.md"].partition("## For other libraries")[2]
    assert set(re.findall(r"`(?:--to )?(\w+)`(?= \(|\n\()", told)) == find_libraries().keys()


def needs_its_name(contents: dict[str, Any], folder: Path) -> bool:
    try:
        brought(contents, folder)
    except UserError as error:
        return "fits several formats" in str(error)
    return False


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_documentation_says_which_formats_need_their_name(document: str, tmp_path: Path):
    needed = [name for name, make in FOREIGN.items() if needs_its_name(make().contents, tmp_path)]
    parts = [one for one in DOCUMENTS[document].split("\n\n") if "--format" in one and "keys" in one]
    (named,) = [set(re.findall(r"`(?:--format )?(\w+)`", one)) for one in parts]
    assert [name for name in FOREIGN if name in named] == needed == ["simclr_converter"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_documented_names_can_be_given(document: str, tmp_path: Path):
    names = re.findall(r"^sslbench import .*--as (\S+)", DOCUMENTS[document], re.MULTILINE)
    assert names
    for name in names:
        name_for_import(name, tmp_path)
