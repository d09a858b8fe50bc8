"""Plain values: whether they are what a dataclass's type hints promise, and what they are as JSON. Imports no torch."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import math
import sys
import types
import typing
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin

from benchmark.core.errors import UserError


def fits(value: Any, hint: Any) -> bool:
    """An int does for a float, a bool for neither; floats are finite; tuples have the hint's length; of a dictionary
    every key and value fits, of a list every value."""
    if hint is Any:
        return True
    if hint is float:  # an int may be more than any float
        return is_number(value) and abs(value) <= sys.float_info.max
    origin, arguments = _parts(hint)
    if origin is typing.Literal:
        return value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return len(value) == len(hints) and all(map(fits, value, hints))
    if origin is list:
        return isinstance(value, list) and all(fits(one, arguments[0]) for one in value)
    if origin in (dict, collections.abc.Mapping):
        key, inner = arguments
        return isinstance(value, Mapping) and all(fits(k, key) and fits(one, inner) for k, one in value.items())
    return isinstance(value, origin or hint) and not (hint is int and isinstance(value, bool))


@functools.cache  # asked for every value of every record
def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return get_origin(hint), get_args(hint)


def hints_of(kind: type, extras: bool = False) -> Mapping[str, Any]:
    """`typing.get_type_hints` of a class. extras: with what Annotated adds."""
    known = _HINTS.setdefault(kind, {})
    if extras not in known:
        known[extras] = types.MappingProxyType(typing.get_type_hints(kind, include_extras=extras))
    return known[extras]


# A plan asks for those of a class a hundred times. Classes of a user's recipes are imported anew, and may go.
_HINTS: weakref.WeakKeyDictionary[type, dict[bool, Mapping[str, Any]]] = weakref.WeakKeyDictionary()


def misfits(instance: Any) -> Iterator[str]:
    """Each field of a dataclass whose value is of another type than its hint, told in words."""
    hints = hints_of(type(instance))
    if undeclared := _undeclared(type(instance)):
        yield f"{undeclared[0]} is not a field of {type(instance).__name__}: decorate it with @dataclass(frozen=True)"
    for field in fields(instance):
        value, hint = getattr(instance, field.name), hints[field.name]
        if not fits(value, hint):
            yield f"{field.name} is {value!r}, which is not of type {in_words(hint)}"


def _undeclared(kind: type) -> list[str]:
    """What a class below a dataclass annotates and its own dataclass decorator, forgotten, did not make a field."""
    own = vars(kind).get("__annotations__", {})
    known = {f.name for f in fields(kind) if f.default == vars(kind).get(f.name, f.default)}
    return [name for name, hint in own.items() if name not in known and "ClassVar" not in str(hint)]


def all_misfits(value: Any, prefix: str = "") -> Iterator[str]:
    """Like `misfits`, of every dataclass below too, by dotted key."""
    below = value if isinstance(value, Mapping) else {}
    if is_dataclass(value) and not isinstance(value, type):
        yield from (f"{prefix}{told}" for told in misfits(value))
        below = {f.name: getattr(value, f.name) for f in fields(value)}
    for name, one in below.items():
        yield from all_misfits(one, f"{prefix}{name}.")


def in_words(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")


def at_least(instance: Any, **least: float) -> None:
    """Raises UserError unless each field named is at least that much, and finite."""
    for name, bound in least.items():
        value = getattr(instance, name)
        if not is_number(value) or not bound <= value < math.inf:
            raise UserError(f"{type(instance).__name__}: {name} must be at least {bound}, not {value!r}")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def on_one_line(value: Any) -> str:
    """Any recipe value as text; dataclasses without the fields that have their default."""
    if is_dataclass(value) and not isinstance(value, type):
        if len(fields(value)) == 1:
            return f"{type(value).__name__}({on_one_line(getattr(value, fields(value)[0].name))})"
        told = [f for f in fields(value) if getattr(value, f.name) != f.default]
        return f"{type(value).__name__}({', '.join(f'{f.name}={on_one_line(getattr(value, f.name))}' for f in told)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(on_one_line, value))})"
    return str(as_plain(value))


def later(default: Any) -> Any:
    """A dataclass's field that came after there were runs. As plain data it is left out while it has its default, so
    that their hashes and files stay as they are. The default is what they did, and must never change."""
    return dataclasses.field(default=default, metadata={"later": True})


def as_plain(value: Any) -> Any:
    """Any recipe value as JSON-ready data; dataclasses keep their class name under "is"."""
    if is_dataclass(value) and not isinstance(value, type):
        kept = {f.name: as_plain(getattr(value, f.name)) for f in fields(value) if _is_told(f, getattr(value, f.name))}
        return {"is": type(value).__name__, **kept}
    if isinstance(value, Mapping):
        return {key: as_plain(value[key]) for key in value}
    if isinstance(value, tuple | list):
        return [as_plain(item) for item in value]
    return value


def _is_told(one: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a dataclass's plain data names this field, of that value."""
    return one.metadata.get("resolved", True) and not (one.metadata.get("later") and value == one.default)


def flat(recipe: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a recipe as (dotted key, value), in field order."""
    plain = recipe if isinstance(recipe, dict) else as_plain(recipe)
    for key, value in plain.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def from_plain(plain: Any, known: Mapping[str, type]) -> Any:
    """What `as_plain` was given, of dataclasses that are `known` by name. Raises UserError for a class that is not, a
    field that is missing or unknown, or a value of another type than its hint."""
    if isinstance(plain, list):
        return tuple(from_plain(item, known) for item in plain)
    if not isinstance(plain, dict):
        return plain
    inner = {key: from_plain(value, known) for key, value in plain.items() if key != "is"}
    if "is" not in plain:
        return inner
    if (name := str(plain["is"])) not in known:
        raise UserError(f"there is no {name!r}; there are: {', '.join(sorted(known))}")
    # a default in place of what was not written down would be a guess
    needed = (f.name for f in fields(known[name]) if _is_told(f, f.default))
    if missing := [one for one in needed if one not in inner]:
        raise UserError(f"{name} lacks {', '.join(missing)}")
    try:
        value = known[name](**inner)
    except TypeError as error:
        raise UserError(f"{name} does not fit this version of sslbench ({error})") from error
    if faults := list(misfits(value)):
        raise UserError(f"{name}: {'; '.join(faults)}")
    return value


def subclasses(kind: type) -> dict[str, type]:
    """Every class below `kind` that has been imported, by name. Raises UserError for two of one name: files say which
    class they mean by its name alone."""
    found: dict[str, type] = {}
    below: type
    for below in kind.__subclasses__():
        for name, one in {below.__name__: below, **subclasses(below)}.items():
            if (other := found.get(name, one)).__module__ != one.__module__:
                places = f"{other.__module__} and {one.__module__}"
                raise UserError(f"two classes are called {name}, in {places}; give yours another name")
            found[name] = one
    return found
