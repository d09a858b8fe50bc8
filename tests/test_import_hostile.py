"""Files that want to run code, are cut off, or are no weights: a named error, and nothing of them was run."""

from __future__ import annotations

import argparse
import enum
import os
import pathlib
import pickle
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_networks import bare, below, lightning, of_lightly, resnet
from torch import nn

from benchmark.core.errors import UserError
from benchmark.exchange.contents import read_contents, tensors_of
from benchmark.exchange.importing import Wanted, import_backbone


class Payload:
    """What an attacker puts beside the weights: it makes a file when it is unpickled the usual way."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def payloads(mark: Path) -> dict[str, Payload]:
    return {
        "posix.system": Payload(os.system, f"touch {mark}"),
        "builtins.eval": Payload(eval, f"open({str(mark)!r}, 'w')"),
        "builtins.getattr": Payload(getattr, os, "system"),
        "subprocess.Popen": Payload(__import__("subprocess").Popen, ["touch", str(mark)]),
        "torch.hub.load_state_dict_from_url": Payload(torch.hub.load_state_dict_from_url, "http://127.0.0.1/x"),
    }


def saved(contents: Any, path: Path, is_zip: bool = True) -> Path:
    torch.save(contents, path, _use_new_zipfile_serialization=is_zip)
    return path


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("called", sorted(payloads(Path())))
def test_a_pickle_that_calls_is_refused_and_not_run(called: str, is_zip: bool, tmp_path: Path):
    mark = tmp_path / "it ran".replace(" ", "_")
    whole = of_lightly().contents | {"hyper_parameters": payloads(mark)[called]}
    if called == "builtins.getattr":
        whole["hyper_parameters"] = Payload(getattr, "text", "upper")
    path = saved(whole, tmp_path / "evil.ckpt", is_zip)
    with pytest.raises(UserError, match=rf"evil\.ckpt: refused: this pickle calls {called},") as error:
        import_backbone(path, Wanted())
    assert "Nothing of it was run" in str(error.value)
    assert not mark.exists()


def test_the_payload_would_have_run(tmp_path: Path):
    """Else the test above could not fail."""
    mark = tmp_path / "it_ran"
    pickle.loads(pickle.dumps(payloads(mark)["posix.system"]))
    assert mark.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_every_protocol_of_pickle(protocol: int, tmp_path: Path):
    """Older ones call by other instructions. A bare pickle is no file of torch's, whatever else it is."""
    mark = tmp_path / "it_ran"
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(payloads(mark)["posix.system"], protocol))
    with pytest.raises(UserError, match=r"evil\.pkl: refused: this pickle calls posix\.system"):
        read_contents(tmp_path / "evil.pkl")
    (tmp_path / "old.pkl").write_bytes(b"(S'touch " + str(mark).encode() + b"'\nios\nsystem\n.")
    with pytest.raises(UserError, match=r"old\.pkl: refused: this pickle calls os\.system"):
        read_contents(tmp_path / "old.pkl")
    assert not mark.exists()


@pytest.fixture
def package() -> Iterator[types.ModuleType]:
    """One that is there while a file is saved, and gone when it is read."""
    module = types.ModuleType("somewhere_else")

    class Config:
        def __init__(self) -> None:
            self.depth, self.path = 50, pathlib.PurePosixPath("/a")

    class AttributeDict(dict):  # Lightning's
        pass

    class Many(list):
        pass

    class Kind(enum.Enum):
        BIG = 1

    for one in (Config, AttributeDict, Many, Kind):
        one.__module__, one.__qualname__ = module.__name__, one.__name__
        setattr(module, one.__name__, one)
    sys.modules[module.__name__] = module
    yield module
    sys.modules.pop(module.__name__, None)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before torch 1.6"])
def test_unknown_classes_become_nothing(package: Any, is_zip: bool, tmp_path: Path):
    """As in Lightning's files: its own classes, the user's, and values that pickle as calls."""
    hyper = package.AttributeDict(a=1, b=package.Config())
    others = {
        "hyper_parameters": hyper,
        "callbacks": {"x": package.Many([1, 2]), "kind": package.Kind.BIG, "where": pathlib.PurePosixPath("/tmp")},
        "args": argparse.Namespace(lr=0.1, device=torch.device("cpu"), dtype=torch.float16),
        "best": torch.nn.Parameter(torch.ones(2)),
        "set": {1, 2},
        "loss": np.float64(1.5),
        "losses": np.arange(3),
    }
    whole = of_lightly().contents | others
    path = saved(whole, tmp_path / "a.ckpt", is_zip)
    del sys.modules[package.__name__]
    contents = read_contents(path)
    assert package.__name__ not in sys.modules
    wanted, found = dict(tensors_of(whole)), dict(tensors_of(contents))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], one) for key, one in wanted.items())
    assert contents["hyper_parameters"].stands_for == "somewhere_else.AttributeDict"
    assert contents["set"] == {1, 2}
    assert contents["epoch"] == 3
    assert import_backbone(path, Wanted())[1]["format"] == "lightly"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_of_every_kind_come_out_as_they_went_in(package: Any, dtype: torch.dtype, is_zip: bool, tmp_path: Path):
    """Parts of one storage too, and what is not contiguous."""
    whole = (10 * torch.rand(4, 6)).to(dtype)
    tensors = {"whole": whole, "row": whole[1], "turned": whole.T, "none": whole[:0], "one": whole[2, 3]}
    path = saved({"weights": tensors, "other": package.Config()}, tmp_path / "a.pt", is_zip)
    found = read_contents(path)["weights"]
    assert all(torch.equal(found[key], one) and found[key].dtype == dtype for key, one in tensors.items())


def cut(path: Path, part: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    return path


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_a_zip_that_is_cut_off(part: float, tmp_path: Path):
    path = cut(saved(bare(resnet()), tmp_path / "cut.pth"), part)
    with pytest.raises(UserError, match=r"cut\.pth: .*fetch it again"):
        read_contents(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.999])
def test_an_old_file_that_is_cut_off(part: float, tmp_path: Path):
    path = cut(saved(bare(resnet()), tmp_path / "cut.pth", is_zip=False), part)
    with pytest.raises(UserError, match=r"cut\.pth: damaged, or no file of weights .*fetch it again"):
        read_contents(path)


def test_safetensors_that_are_cut_off(tmp_path: Path):
    from safetensors.torch import save_file

    save_file(bare(resnet()), tmp_path / "cut.safetensors")
    with pytest.raises(UserError, match=r"cut\.safetensors: not a whole safetensors file .*fetch it again"):
        read_contents(cut(tmp_path / "cut.safetensors", 0.5))


def rewritten(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, change(name, content))
    return path


def test_a_storage_that_is_too_short(package: Any, tmp_path: Path):
    path = saved({"w": torch.ones(8), "x": package.Config()}, tmp_path / "short.pth")
    rewritten(path, lambda name, content: content[:8] if "/data/" in name else content)
    with pytest.raises(UserError, match=r"short\.pth: damaged.*a storage of 8 bytes stands for 8 numbers"):
        read_contents(path)


def test_a_zip_bomb_is_not_unpacked(package: Any, tmp_path: Path):
    """torch compresses nothing, and what claims to be compressed is not looked into."""
    path = saved({"w": torch.zeros(1000), "x": package.Config()}, tmp_path / "bomb.pth")
    rewritten(path, lambda _, content: content, zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match=r"bomb\.pth: damaged.*is compressed"):
        read_contents(path)


def test_numbers_that_point_outside_their_storage(package: Any, tmp_path: Path):
    path = saved({"w": torch.ones(2, 3), "x": package.Config()}, tmp_path / "outside.pth")
    rewritten(path, lambda name, content: content.replace(b"K\x02K\x03\x86", b"K\xf0K\xf0\x86"))
    with pytest.raises(UserError, match=r"outside\.pth: damaged"):
        read_contents(path)


def noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 9)


def text(path: Path) -> None:
    path.write_text("<html>Not found</html>")


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("resnet.pth", b"")


def program(path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(path))


def whole_module(path: Path) -> None:
    torch.save(nn.Linear(2, 2), path)


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"blobs": {"conv1_w": [1.0]}}))


def lone_tensor(path: Path) -> None:
    torch.save(torch.zeros(2), path)


@pytest.mark.filterwarnings("ignore:.torch.jit")
@pytest.mark.parametrize(
    ("write", "told"),
    [
        (noise, "damaged, or no file of weights"),
        (text, "damaged, or no file of weights"),
        (Path.mkdir, "cannot be read"),
        (lambda path: None, "cannot be read"),
        (other_zip, "a zip that torch.save did not write; unpack it"),
        (program, r"a TorchScript program, whose code is not run; save the network's state_dict\(\)"),
        (whole_module, r"holds an object of torch\.nn\.modules\.linear\.Linear, whose code is not run"),
        (plain_pickle, "a pickle that torch.save did not write"),
        (lone_tensor, "holds a Tensor, not a dictionary of weights"),
    ],
)
def test_what_is_no_file_of_weights(write: Callable[[Path], object], told: str, tmp_path: Path):
    write(tmp_path / "x.pth")
    with pytest.raises(UserError, match=rf"x\.pth: {told}"):
        read_contents(tmp_path / "x.pth")


def test_two_formats_that_both_fit_are_named(tmp_path: Path):
    """A Lightning file with nothing but a backbone may be lightly's or solo-learn's."""
    path = saved(lightning(below("backbone.", bare(resnet()))), tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"a\.ckpt: fits several formats: lightly, solo_learn\..*--format lightly"):
        import_backbone(path, Wanted())
    for name in ("lightly", "solo_learn"):
        assert import_backbone(path, Wanted(name))[1]["format"] == name
