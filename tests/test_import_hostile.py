"""Files that want to run code, are cut off, or are no weights: a named error, and nothing of them was run."""

from __future__ import annotations

import argparse
import collections
import copy
import datetime
import decimal
import enum
import fractions
import functools
import http
import io
import os
import pathlib
import pickle
import random
import re
import signal
import socket
import subprocess
import sys
import types
import uuid
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_networks import bare, of_lightly, resnet
from safetensors.torch import save_file
from torch import nn

from benchmark.core.errors import UserError
from benchmark.exchange.contents import read_contents, tensors_of
from benchmark.exchange.importing import Wanted, import_backbone
from benchmark.exchange.stand_ins import StandIn

ALEXNET = (
    *(f"features.{place + after}" for place in (0, 4, 8, 11, 14) for after in (0, 1)),
    "classifier.1",
    "classifier.4",
)


class Payload:
    """What an attacker puts beside the weights: it makes a file when it is unpickled the usual way."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def contents_of(path: Path) -> dict[str, Any]:
    return read_contents(path)[0]


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
        contents_of(tmp_path / "evil.pkl")
    (tmp_path / "old.pkl").write_bytes(b"(S'touch " + str(mark).encode() + b"'\nios\nsystem\n.")
    with pytest.raises(UserError, match=r"old\.pkl: refused: this pickle calls os\.system"):
        contents_of(tmp_path / "old.pkl")
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
    contents = contents_of(path)
    assert package.__name__ not in sys.modules
    wanted, found = dict(tensors_of(whole)), dict(tensors_of(contents))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], one) for key, one in wanted.items())
    assert contents["hyper_parameters"].stands_for == "somewhere_else.AttributeDict"
    assert isinstance(contents["set"], StandIn)
    assert contents["epoch"] == 3
    assert import_backbone(path, Wanted())[1]["format"] == "lightly"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_of_every_kind_come_out_as_they_went_in(package: Any, dtype: torch.dtype, is_zip: bool, tmp_path: Path):
    """Parts of one storage too, and what is not contiguous."""
    whole = (10 * torch.rand(4, 6)).to(dtype)
    tensors = {"whole": whole, "row": whole[1], "turned": whole.T, "none": whole[:0], "one": whole[2, 3]}
    path = saved({"weights": tensors, "other": package.Config()}, tmp_path / "a.pt", is_zip)
    found = contents_of(path)["weights"]
    assert all(torch.equal(found[key], one) and found[key].dtype == dtype for key, one in tensors.items())


def cut(path: Path, part: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    return path


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_a_zip_that_is_cut_off(part: float, tmp_path: Path):
    path = cut(saved(bare(resnet()), tmp_path / "cut.pth"), part)
    with pytest.raises(UserError, match=r"cut\.pth: .*fetch it again"):
        contents_of(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.999])
def test_an_old_file_that_is_cut_off(part: float, tmp_path: Path):
    path = cut(saved(bare(resnet()), tmp_path / "cut.pth", is_zip=False), part)
    with pytest.raises(UserError, match=r"cut\.pth: damaged, or no file of weights .*fetch it again"):
        contents_of(path)


def test_safetensors_that_are_cut_off(tmp_path: Path):
    save_file(bare(resnet()), tmp_path / "cut.safetensors")
    with pytest.raises(UserError, match=r"cut\.safetensors: not a whole safetensors file .*fetch it again"):
        contents_of(cut(tmp_path / "cut.safetensors", 0.5))


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
        contents_of(path)


def test_a_zip_bomb_is_not_unpacked(package: Any, tmp_path: Path):
    """torch compresses nothing, and what claims to be compressed is not looked into."""
    path = saved({"w": torch.zeros(1000), "x": package.Config()}, tmp_path / "bomb.pth")
    rewritten(path, lambda _, content: content, zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match=r"bomb\.pth: damaged.*is compressed"):
        contents_of(path)


def bomb_of_tensors(path: Path) -> Path:
    """Which torch's own reader of weights unpacks: 4 MB from some KB."""
    saved({"w": torch.zeros(1 << 20)}, path)
    return rewritten(path, lambda _, content: content, zipfile.ZIP_DEFLATED)


def test_a_zip_bomb_of_nothing_but_tensors_is_not_unpacked(tmp_path: Path):
    path = bomb_of_tensors(tmp_path / "bomb.pth")
    assert path.stat().st_size < 1 << 17
    with pytest.raises(UserError, match=r"bomb\.pth: damaged.*is compressed"):
        contents_of(path)


def test_a_zip_whose_members_share_their_bytes_is_not_unpacked(tmp_path: Path):
    """Each is stored as it is, and all together are more than the file."""
    path = saved({"w": torch.zeros(1000)}, tmp_path / "shared.pth")
    with zipfile.ZipFile(path, "a") as archive:
        (big,) = [info for info in archive.infolist() if info.filename.endswith("data/0")]
        for number in range(9):
            again = copy.copy(big)
            again.filename = f"{big.filename}{number}"
            archive.filelist.append(again)
        archive._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"shared\.pth: damaged.*its members are larger than the file"):
        contents_of(path)


def doubled(depth: int) -> dict[str, Any]:
    """2^depth ways to one tensor, in some bytes a level."""
    found: dict[str, Any] = {"w": torch.zeros(1)}
    for _ in range(depth):
        found = {"a": found, "b": found}
    return found


def test_dictionaries_that_lie_in_several_places_are_gone_through_once(tmp_path: Path):
    path = saved(doubled(16), tmp_path / "laughs.pth")
    assert path.stat().st_size < 5000
    assert [key for key, _ in tensors_of(contents_of(path))] == [".".join(["a"] * 16 + ["w"])]


def endless() -> dict[str, Any]:
    whole: dict[str, Any] = {}
    whole["state_dict"] = {"model": whole}
    return whole


def deep() -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for _ in range(200):
        whole = {"a": whole}
    return whole


def own_keys() -> dict[str, Any]:
    state = OrderedDict(bare(resnet()))
    state.keys = 5  # type: ignore[method-assign,assignment]
    return state


UNUSUAL: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "a dictionary in itself": (endless, r"damaged.*the dictionary at state_dict\.model holds itself"),
    "deep": (deep, "damaged.*dictionaries lie in each other more than 50 deep"),
    "a block of no dimensions": (
        lambda: bare(resnet()) | {"layer1.0.conv1.weight": torch.tensor(1.0)},
        r"its layer1\.0\.conv1\.weight is \(\), which is no convolution",
    ),
    "a block of one dimension": (
        lambda: bare(resnet()) | {"layer1.0.conv2.weight": torch.zeros(3)},
        r"its layer1\.0\.conv2\.weight is \(3,\), which is no convolution",
    ),
    "an AlexNet of no dimensions": (
        lambda: {"arch": "alexnet", "state_dict": {f"{name}.weight": torch.tensor(1.0) for name in ALEXNET}},
        r"not this AlexNet: its features\.0 is no convolution",
    ),
    "a sparse tensor": (
        lambda: bare(resnet()) | {"layer1.0.conv1.weight": torch.eye(4)[..., None, None].to_sparse()},
        r"layer1\.0\.conv1\.weight is a sparse tensor; save ordinary tensors",
    ),
    "no numbers": (
        lambda: {key: one.to("meta") for key, one in bare(resnet()).items()},
        r"conv1\.weight is a tensor without numbers, of torch's meta device",
    ),
    "a quantised tensor": (
        lambda: {"state_dict": {"w": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}},
        r"state_dict\.w is a quantised tensor",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", UNUSUAL)
def test_what_torch_saves_and_no_network_has(what: str, tmp_path: Path):
    make, told = UNUSUAL[what]
    with pytest.raises(UserError, match=rf"odd\.pth: {told}"):
        import_backbone(saved(make(), tmp_path / "odd.pth"), Wanted())


def test_a_dictionary_with_attributes_of_its_own_is_a_dictionary(tmp_path: Path):
    """A pickle may set `keys` of an OrderedDict, as torch sets `_metadata`."""
    _, origin = import_backbone(saved(own_keys(), tmp_path / "odd.pth"), Wanted())
    assert origin["format"] == "torchvision"


class Many:
    """In place of a storage, when it is pickled."""

    def __init__(self, number: Any, count: int) -> None:
        self.number, self.count = number, count

    def __reduce__(self) -> tuple[Any, ...]:
        raise AssertionError("it has a persistent id")


class Naming(pickle.Pickler):
    def persistent_id(self, one: Any) -> Any:
        old = (None,) if self.is_old else ()
        return (
            ("storage", torch.FloatStorage, str(one.number), "cpu", one.count, *old) if isinstance(one, Many) else None
        )

    is_old = False


class NamingAsOf2018(Naming):
    is_old = True


class View:
    """A tensor of that storage."""

    def __init__(self, storage: Many) -> None:
        self.storage = storage

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, (self.storage, 0, (self.storage.count,), (1,), False, OrderedDict())


def pickled(whole: Any, pickler: type[Naming]) -> bytes:
    file = io.BytesIO()
    pickler(file, 2).dump(whole)
    return file.getvalue()


def zip_of(path: Path, pickle_of_it: bytes, storage: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle_of_it)
        archive.writestr("x/version", "3\n")
        archive.writestr("x/data/0", storage)
    return path


@pytest.mark.parametrize("kind", [bytearray, list, set, dict, range])
def test_pythons_own_classes_are_not_called(kind: type, tmp_path: Path):
    """bytearray(2**30) is 14 bytes of pickle."""
    arguments = (1 << 20,) if kind in (bytearray, range) else ([],)
    path = zip_of(tmp_path / "much.pth", pickled({"w": [Payload(kind, *arguments)]}, Naming))
    (found,) = contents_of(path)["w"]
    assert isinstance(found, StandIn)


def test_a_storage_is_read_once(package: Any, tmp_path: Path):
    """However often a pickle names it."""
    whole = {"other": package.Config(), **{str(number): View(Many(0, 4)) for number in range(9)}}
    found = contents_of(zip_of(tmp_path / "a.pth", pickled(whole, Naming), bytes(16)))
    assert len({one.untyped_storage().data_ptr() for one in found.values() if isinstance(one, torch.Tensor)}) == 1
    assert len(list(tensors_of(found))) == 9


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before torch 1.6"])
def test_storages_that_are_larger_than_the_file_together(package: Any, is_zip: bool, tmp_path: Path):
    whole = {"other": package.Config(), "w": [Many(number, 1000) for number in range(100)]}
    path = tmp_path / "much.pth"
    if is_zip:
        zip_of(path, pickled(whole, Naming), bytes(4000))
    else:
        before = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
        path.write_bytes(b"".join(pickle.dumps(one, 2) for one in before) + pickled(whole, NamingAsOf2018))
        path.write_bytes(path.read_bytes() + pickle.dumps([], 2) + bytes(4000))
    with pytest.raises(UserError, match=r"much\.pth: damaged.*the tensors that it names are larger than the file"):
        contents_of(path)


def test_python_2s_ordered_dictionaries(tmp_path: Path):
    """Their items come as a list, which nobody else has; given to many, it would multiply."""
    items = [["a", View(Many(0, 4))], ["b", 5]]
    whole = {"state_dict": Payload(OrderedDict, items), "again": Payload(OrderedDict, items)}
    found = contents_of(zip_of(tmp_path / "a.pth", pickled(whole, Naming), bytes(16)))
    assert found["state_dict"].keys() == {"a", "b"}
    assert torch.equal(found["state_dict"]["a"], torch.zeros(4))
    assert found["again"] == {}


def lists_in_lists(depth: int) -> list[Any]:
    """As text it has 2^depth ends."""
    found: list[Any] = ["end"]
    for _ in range(depth):
        found = [found, found]
    return found


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before torch 1.6"])
def test_what_multiplies_as_text_is_not_shown(is_zip: bool, tmp_path: Path):
    """Where a name is expected."""
    vgg = {"arch": lists_in_lists(16), "state_dict": {"top_layer.weight": torch.zeros(1)}}
    with pytest.raises(UserError, match="deepcluster: DeepCluster's unknown network, which is not among") as error:
        import_backbone(saved(vgg, tmp_path / "a.pth", is_zip), Wanted())
    assert "end" not in str(error.value)


def test_a_storage_has_a_name(tmp_path: Path):
    class Odd(Naming):
        def persistent_id(self, one: Any) -> Any:
            return one.number if isinstance(one, Many) else None

    saved_id = ("storage", torch.FloatStorage, lists_in_lists(16), "cpu", 4)
    path = zip_of(tmp_path / "a.pth", pickled({"w": Many(saved_id, 4)}, Odd))
    with pytest.raises(UserError, match="a storage whose name, type or size is none"):
        contents_of(path)


def test_a_tensor_cannot_be_made_larger_than_its_storage(package: Any, tmp_path: Path):
    """Tensor.__setstate__ would ask for the memory."""

    class Grown(View):
        def __reduce__(self) -> tuple[Any, ...]:
            return (*super().__reduce__(), (self.storage, 0, (1 << 20,), (1,)))

    whole = {"other": package.Config(), "w": Grown(Many(0, 4))}
    found = contents_of(zip_of(tmp_path / "a.pth", pickled(whole, Naming), bytes(16)))
    assert found["w"].shape == (4,)


def test_a_table_of_what_is_needed_again_is_not_made_on_the_pickles_word(tmp_path: Path):
    """LONG_BINPUT with a high number makes Python's own reader ask for gigabytes."""
    path = zip_of(tmp_path / "table.pth", b"\x80\x02}r\xff\xff\x0f\x00.")
    with pytest.raises(UserError, match=r"table\.pth: damaged.*it keeps more values than it has"):
        contents_of(path)


def tuples_in_tuples(depth: int) -> tuple[Any, ...]:
    """To hash it takes 2^depth steps."""
    found: tuple[Any, ...] = ("end",)
    for _ in range(depth):
        found = (found, found)
    return found


ALL_REFUSED = """
import sys
from pathlib import Path
from benchmark.core.errors import UserError
from benchmark.exchange.contents import read_contents
for path in Path(sys.argv[1]).glob("*.pth"):
    try:
        read_contents(path)
    except UserError as error:
        print(error)
"""


def keyed(protocol: int, before: bytes, after: bytes) -> bytes:
    """A pickle with a tuple that takes for ever to hash where `before` and `after` meet."""
    return b"\x80" + bytes([protocol]) + before + pickle.dumps(tuples_in_tuples(60), 2)[2:-1] + after + b"."


PAIRS = pickle.dumps(OrderedDict, 2)[2:-1]
HASHED = {
    "one item": keyed(2, b"}", b"K\x01s"),
    "items": keyed(2, b"}(", b"K\x01u"),
    "a dictionary of protocol 0": keyed(2, b"(", b"K\x01d"),
    "a set": keyed(4, b"\x8f(", b"\x90"),
    "a frozen set": keyed(4, b"(", b"\x91"),
    "items of Python 2": keyed(2, PAIRS + b"](", b"K\x01\x86e\x85R"),
    "a chain": b"\x80\x02}(K\x01" + b"\x85" * 1_000_000 + b"K\x01u.",  # its hash would end the process
}


def test_keys_that_take_for_ever_to_look_up(tmp_path: Path):
    """In another process, which the limit ends: nothing else can stop a hash."""
    for where, content in HASHED.items():
        zip_of(tmp_path / f"{where}.pth", content)
    ended = subprocess.run([sys.executable, "-c", ALL_REFUSED, tmp_path], capture_output=True, text=True, timeout=120)
    assert ended.stderr == ""
    told = ended.stdout.splitlines()
    assert len(told) == len(HASHED)
    for line in told:
        assert re.search(r"\.pth: damaged, .*a key of a dictionary is a tuple of more than 64 parts", line)


def test_keys_of_a_few_parts_are_read(tmp_path: Path):
    whole = {"w": torch.ones(2), "betas": {(0.9, (0.999, None)): 1}}
    found = contents_of(saved(whole, tmp_path / "a.pth"))
    assert torch.equal(found["w"], whole["w"])
    assert found["betas"] == {"#0": 1}


def test_numbers_of_another_machine(tmp_path: Path):
    path = saved({"w": torch.ones(2)}, tmp_path / "big.pth")
    rewritten(path, lambda name, content: b"big" if name.endswith("byteorder") else content)
    with pytest.raises(UserError, match=r"big\.pth: damaged.*not written with the low byte first"):
        contents_of(path)


def common_values() -> dict[str, Any]:
    """What hyper-parameters and the states of a training hold."""
    generator = np.random.default_rng(0)
    return {
        "partial": functools.partial(torch.optim.SGD, lr=0.1),
        "slice": slice(1, 2),
        "range": range(3),
        "deque": collections.deque([1], maxlen=5),
        "counter": collections.Counter("ab"),
        "defaultdict": collections.defaultdict(list, a=[1]),
        "generator": generator,
        "seeds": np.random.SeedSequence(1),
        "old state": np.random.get_state(),
        "random state": np.random.RandomState(0),
        "python's state": random.getstate(),
        "array": np.arange(3),
        "masked": np.ma.masked_array([1, 2], [True, False]),
        "bool": np.bool_(True),
        "text": np.str_("a"),
        "dtype": np.dtype("float32"),
        "torch's state": torch.get_rng_state(),
        "status": http.HTTPStatus.OK,
        "signal": signal.SIGTERM,
        "flag": re.IGNORECASE,
        "pattern": re.compile("a"),
        "family": socket.AF_INET,
        "uuid": uuid.UUID(int=1),
        "decimal": decimal.Decimal("1.5"),
        "fraction": fractions.Fraction(1, 2),
        "complex": 1j,
        "bytes": b"ab",
        "bytearray": bytearray(b"ab"),
        "frozenset": frozenset([1]),
        "time": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
        "path": pathlib.PurePosixPath("/a"),
        "namespace": types.SimpleNamespace(a=1),
        "arguments": argparse.Namespace(a=1),
        "size": torch.Size([1]),
        "device": torch.device("cpu"),
        "layout": torch.strided,
        "function": torch.nn.functional.relu,
        "class": torch.optim.SGD,
        "float8": torch.ones(2, dtype=torch.float8_e4m3fn),
        "complex tensor": torch.ones(2, dtype=torch.complex64),
    }


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("what", common_values())
def test_values_that_pickle_as_calls_are_no_attack(what: str, is_zip: bool, tmp_path: Path):
    whole = {"state_dict": {"w": torch.ones(2)}, "hyper_parameters": {what: common_values()[what]}}
    found = contents_of(saved(whole, tmp_path / "a.ckpt", is_zip))
    assert torch.equal(found["state_dict"]["w"], torch.ones(2))


def test_what_steers_a_terminal_is_written_out(tmp_path: Path):
    """In keys, in the names of what is called, and in values that an error quotes."""
    steering = "\x1b[31mred"
    state = bare(resnet()) | {f"fc.{steering}.{number}": torch.zeros(1) for number in range(2)}
    _, origin = import_backbone(saved(state, tmp_path / "a.pth"), Wanted("torchvision"))
    assert origin["dropped"] == [r"fc.\x1b[31mred.0", r"fc.\x1b[31mred.1"]
    save_file(state, tmp_path / "a.safetensors")
    assert r"fc.\x1b[31mred.0" in contents_of(tmp_path / "a.safetensors")
    vgg = {"arch": steering, "state_dict": {"top_layer.weight": torch.zeros(1)}}
    called = b"\x80\x02cevil\n" + steering.encode() + b"\n)R."
    for path in (saved(vgg, tmp_path / "b.pth"), zip_of(tmp_path / "c.pth", called)):
        with pytest.raises(UserError, match="red") as error:
            import_backbone(path, Wanted())
        assert "\x1b" not in str(error.value)
        assert r"\x1b[31mred" in str(error.value)


def test_numbers_that_point_outside_their_storage(package: Any, tmp_path: Path):
    path = saved({"w": torch.ones(2, 3), "x": package.Config()}, tmp_path / "outside.pth")
    rewritten(path, lambda name, content: content.replace(b"K\x02K\x03\x86", b"K\xf0K\xf0\x86"))
    with pytest.raises(UserError, match=r"outside\.pth: damaged"):
        contents_of(path)


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
        contents_of(tmp_path / "x.pth")
