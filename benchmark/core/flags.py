"""The words of a command line, made unambiguous before its parser sees them. Imports no torch.

The parser keeps the last of several equal flags and drops the others without a word. Here flags that take many values
add up, and a flag that takes one is refused when it is given two.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, get_origin

from benchmark.core.errors import UserError


def gathered(words: Sequence[str], hints: Mapping[str, Any]) -> list[str]:
    """The same words with every flag at most once, behind all else. A leading ~ is the home folder, since no shell
    expands it in --data=~/x.

    hints: flag, as --num-images -> type of its parameter; other flags are left for the parser to refuse. Raises
    UserError for an empty word, a flag that is given two values, and a ~ that is nobody's home.
    """
    others: list[str] = []
    given: dict[str, list[str]] = {}
    rest = [_with_home(word) for word in words]
    while rest:
        flag, equals, value = rest[0].partition("=")
        flag = flag.replace("_", "-")  # the parser takes both
        switch = flag.replace("--no-", "--", 1)
        if rest[0] == "--":
            others += rest
            break
        if not equals and hints.get(switch) is bool:
            _once(given, switch, [rest.pop(0).replace("_", "-")])
        elif not flag.startswith("--") or hints.get(flag, bool) is bool:
            others.append(rest.pop(0))
        else:
            takes_many = get_origin(hints[flag]) is tuple
            count = 0 if equals else _values(rest[1:], most=len(rest) if takes_many else 1)
            values = [value] if equals else rest[1 : 1 + count]
            rest = rest[1 + count :]
            if takes_many:
                given.setdefault(flag, []).extend(_some(flag, values))
            else:
                _once(given, flag, [f"{flag}={one}" for one in _some(flag, values)])
    lists = {flag: [flag, *values] for flag, values in given.items() if get_origin(hints[flag]) is tuple}
    before = others.index("--") if "--" in others else len(others)
    return [*others[:before], *(word for one in (given | lists).values() for word in one), *others[before:]]


def _values(words: Sequence[str], most: int) -> int:
    """How many of the words belong to the flag before them."""
    end = next((number for number, word in enumerate(words) if word.startswith("--")), len(words))
    return min(end, most)


def _some(flag: str, values: list[str]) -> list[str]:
    if not values:
        raise UserError(f"{flag} needs a value")
    return values


def _once(given: dict[str, list[str]], flag: str, words: list[str]) -> None:
    if given.setdefault(flag, words) != words:
        first, second = " ".join(given[flag]), " ".join(words)
        raise UserError(f"{first} and {second} contradict each other; give {flag} once")


def _with_home(word: str) -> str:
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if not value and (equals or not word):
        raise UserError(f"{flag or 'an argument'} is empty; give it a value or leave it out")
    if not value.startswith("~"):
        return word
    if (home := os.path.expanduser(value)).startswith("~"):
        raise UserError(f"{word}: nobody has the home folder {value.split(os.sep)[0]}; for a name with a ~ write ./~")
    return flag + equals + home
