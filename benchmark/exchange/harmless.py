"""What libraries pickle as calls though it is only a value: no attack, and nothing that tells of weights."""

from __future__ import annotations

UNLIKE = {  # tensors of which torch keeps more, or less, than one row of numbers
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor",
    "torch._utils._rebuild_qtensor": "a quantised tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without numbers, of torch's meta device",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
}


def _of(module: str, names: str) -> set[str]:
    return {f"{module}.{name}" for name in names.split()}


VALUES = {
    *UNLIKE,
    *_of("builtins", "set frozenset dict list tuple complex bytearray slice range"),
    *_of("collections", "Counter defaultdict deque"),
    *_of("datetime", "date datetime time timedelta timezone"),
    *_of("pathlib", "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath"),
    *_of("pathlib._local", "PosixPath WindowsPath PurePosixPath PureWindowsPath"),
    *("_codecs.encode", "decimal.Decimal", "fractions.Fraction", "functools.partial", "types.SimpleNamespace"),
    *("random.Random", "re._compile", "uuid.UUID", "zoneinfo.ZoneInfo._unpickle"),
    # enumerations of Python's own
    *_of("http", "HTTPStatus HTTPMethod"),
    *_of("inspect", "_ParameterKind BufferFlags"),
    *("plistlib.PlistFormat", "pstats.SortKey", "re.RegexFlag", "tkinter.EventType", "uuid.SafeUUID"),
    *_of("signal", "Signals Handlers Sigmasks"),
    *_of("socket", "AddressFamily AddressInfo MsgFlag SocketKind"),
    *_of("ssl", "AlertDescription Options SSLErrorNumber TLSVersion VerifyFlags VerifyMode _SSLMethod"),
    *("numpy.dtype", "numpy.ma.core._mareconstruct"),
    *_of("numpy.core.multiarray", "_reconstruct scalar"),
    *_of("numpy._core.multiarray", "_reconstruct scalar"),
    *("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"),
    *_of("numpy.random._pickle", "__bit_generator_ctor __generator_ctor __randomstate_ctor"),
    *_of("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence __pyx_unpickle_SeedlessSeedSequence"),
    *("torch.device", "torch.serialization._get_layout"),
}
