"""The arguments of a workload, as its description names them: `FILE`, `[detail]`, `...`. Pure.

Its command line is words in which `{FILE}` stands for that argument, and a word `{...}` for the
rest of them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lender.protocol.job import TASK_PLACEHOLDER

REST = "..."
"""As many more as one likes."""

_PLACEHOLDER = re.compile(r"\{([A-Za-z][A-Za-z0-9_-]*)\}")
_ALL_THE_REST = f"{{{REST}}}"


@dataclass(frozen=True, slots=True)
class Bound:
    """The words of one job.

    Attributes:
        named: each argument's word, by its name without brackets.
        rest: those that go beyond.
    """

    named: Mapping[str, str]
    rest: tuple[str, ...] = ()


def is_optional(name: str) -> bool:
    """Whether it may be left out."""
    return name == REST or (name.startswith("[") and name.endswith("]"))


def plain(names: Iterable[str]) -> list[str]:
    """Return them without brackets, and without `REST`."""
    return [name.strip("[]") for name in names if name != REST]


def order_fault(names: Iterable[str]) -> str | None:
    """Say which of them words could not be told apart by, if any."""
    before = ""
    for name in names:
        if before == REST:
            return f"{name}: nothing comes behind {REST}"
        if is_optional(before) and not is_optional(name):
            return f"{name}: what may be left out, such as {before}, comes behind it"
        before = name
    return None


def bind(names: Sequence[str], words: Sequence[str]) -> Bound | None:
    """Return which word is which argument; None: they are too few or too many."""
    single = plain(names)
    needed = sum(not is_optional(name) for name in names)
    if len(words) < needed or (len(words) > len(single) and REST not in names):
        return None
    return Bound(dict(zip(single, words, strict=False)), tuple(words[len(single) :]))


def command_fault(command: Iterable[str], names: Sequence[str]) -> str | None:
    """Say which word of a command line stands for nothing, if any."""
    known = plain(names)
    for word in command:
        for name in _PLACEHOLDER.findall(word):
            if name not in known and f"{{{name}}}" != TASK_PLACEHOLDER:
                return f"{{{name}}}: there is no such argument"
        if _ALL_THE_REST in word and (word != _ALL_THE_REST or REST not in names):
            return f"{word}: {_ALL_THE_REST} is a word of its own, for an argument {REST}"
    return None


def expand(command: Iterable[str], names: Iterable[str], bound: Bound) -> Iterator[str]:
    """Yield the words of a command line; those of arguments that were left out are left out."""
    left_out = {*plain(names)} - bound.named.keys()
    for word in command:
        if word == _ALL_THE_REST:
            yield from bound.rest
        elif left_out.isdisjoint(_PLACEHOLDER.findall(word)):
            yield _PLACEHOLDER.sub(lambda one: bound.named.get(one[1], one[0]), word)
