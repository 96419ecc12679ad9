"""The arguments of a workload, as its description names them: `FILE`, `[detail]`, `...`. Pure."""

from collections.abc import Iterable, Sequence

REST = "..."
"""As many more as one likes."""


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


def bind(names: Sequence[str], words: Sequence[str]) -> dict[str, str] | None:
    """Return each argument's word, by its name without brackets; what goes beyond is `REST`'s.

    None: they are too few or too many.
    """
    single = plain(names)
    needed = sum(not is_optional(name) for name in names)
    if len(words) < needed or (len(words) > len(single) and REST not in names):
        return None
    return dict(zip(single, words, strict=False))
