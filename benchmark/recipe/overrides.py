"""Recipe settings from the command line: `--recipe.method.tau 0.1`, typed by the value that is there."""

from __future__ import annotations

import ast
import math
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args, get_origin

from benchmark.core.errors import UserError, nearest
from benchmark.core.optimisation import Epochs, Steps
from benchmark.core.plain import hints_of
from benchmark.recipe.contract import Change, Recipe
from benchmark.recipe.scales import Scale, at_scale

FLAG = "--recipe."
Override = tuple[str, str]  # (dotted key, text)


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[Override]]:
    """(the other arguments, the recipe overrides in order), from `--recipe.KEY VALUE` and `--recipe.KEY=VALUE`.

    Keys may be written with dashes. Raises UserError for a flag without a value.
    """
    others: list[str] = []
    overrides: list[Override] = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith(FLAG):
            others.append(argument)
            continue
        key, equals, text = argument.removeprefix(FLAG).partition("=")
        if not equals:
            text = next(rest, "")
        if not text or text.startswith("--"):
            raise UserError(f"{FLAG}{key} needs a value, e.g. {FLAG}{key}=0.1")
        overrides.append((key.replace("-", "_"), text))
    return others, overrides


def given_once(settings: Sequence[str]) -> list[Override]:
    """The overrides that `--set KEY=VALUE ...` stands for, each once. Raises UserError for what is not KEY=VALUE, for
    keys that set the same thing to different values, and for the seed, which has a flag of its own."""
    overrides: dict[str, str] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not (key and equals):
            raise UserError(f"--set takes KEY=VALUE, e.g. --set batch_size=64, not {setting!r}")
        _, [(key, text)] = split_flags([f"{FLAG}{setting}"])
        for other, value in overrides.items():
            is_inside = f"{other}.".startswith(f"{key}.") or f"{key}.".startswith(f"{other}.")
            if is_inside and (other, value) != (key, text):
                raise UserError(f"{FLAG}{other} {value} and {FLAG}{key} {text} contradict each other; give one")
        overrides[key] = text
    if "seed" in overrides:
        raise UserError(f"{FLAG}seed: the seed is no setting of the recipe; give --seed {overrides['seed']}")
    return list(overrides.items())


def override(recipe: Recipe, overrides: Sequence[Override], scale: Scale) -> Recipe:
    """The recipe, which `at_scale` will bring to `scale` and then give every override.

    Raises UserError for a key that is not there, with near ones, or a text that is not a value of that key's type.
    """
    for key, text in overrides:
        known = dict(_keys(at_scale(recipe, scale)))
        if key not in known:
            raise UserError(f"{FLAG}{key}: the recipe has no such setting{nearest(key, known)}")
        try:
            change = Change(key, _parsed(key, text, *known[key]), "command line")
            recipe = replace(recipe, overrides=(*recipe.overrides, change))
            at_scale(recipe, scale)  # a value that does not fit is told here
        except UserError as error:
            raise UserError(f"{FLAG}{key} {text}: {error}") from error
    return recipe


def renamed(name: str, overrides: Sequence[Override]) -> str:
    """What a changed recipe's runs are filed under: the name with the changes behind it, so that they stay apart."""
    changes = ",".join(f"{key}={re.sub(r'[^A-Za-z0-9._-]+', '-', text)}" for key, text in overrides)
    return f"{name}@{changes}" if changes else name


def _keys(value: Any, prefix: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """(dotted key, (value, type hint)) of every setting below a recipe, inner ones too."""
    if isinstance(value, Mapping):
        inner = [(name, one, Any) for name, one in value.items()]
    elif is_dataclass(value) and not isinstance(value, type):
        hints = hints_of(type(value))
        kept = [f.name for f in fields(value) if f.metadata.get("resolved", True)]
        inner = [(name, getattr(value, name), hints[name]) for name in kept]
    else:
        inner = []
    for name, one, hint in inner:
        yield f"{prefix}{name}", (one, hint)
        yield from _keys(one, f"{prefix}{name}.")


def _parsed(key: str, text: str, old: Any, hint: Any) -> Any:
    names = {str(one): one for part in (hint, *get_args(hint)) if _is_literal(part) for one in get_args(part)}
    if text in names:
        return names[text]
    if _is_literal(hint):
        raise UserError(f"takes {' or '.join(names)}")
    try:
        if isinstance(old, Epochs | Steps):
            return span(text)
        if isinstance(old, str):
            return int(text) if int in get_args(hint) else text
        if isinstance(old, bool):
            return {"true": True, "false": False}[text.lower()]
        if hint is float or isinstance(old, float):
            value = _finite(text)
            # a whole number where the recipe has one stays one: the hash tells 8 from 8.0
            return int(value) if isinstance(old, int) and value.is_integer() else value
        if isinstance(old, int):
            return int(text)
        if isinstance(old, tuple) or old is None:
            return ast.literal_eval(text)
    except (ValueError, KeyError, SyntaxError, TypeError) as error:
        raise UserError(f"not a valid value (it is {old!r} now)") from error
    inner = ", ".join(f"{FLAG}{name}" for name, _ in _keys(old, f"{key}."))
    raise UserError(f"not one value; set {inner or 'it in a recipe file'}")


def _is_literal(hint: Any) -> bool:
    return get_origin(hint) is typing.Literal


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def span(text: str) -> Epochs | Steps:
    """Of `3epochs`, `300steps`, or `3`, which is epochs. Raises ValueError for anything else."""
    number = text.removesuffix("epochs").removesuffix("steps")
    return Steps(int(number)) if text.endswith("steps") else Epochs(float(number))
