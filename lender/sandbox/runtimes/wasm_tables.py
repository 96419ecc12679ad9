"""Whether the tables of a wasm module stay as small as they begin.

What a table grows to is told by no engine, unless it is exported. So who wants to be sure reads
where the module declares them: its table section (WebAssembly core specification, 5.5.7).
"""

_MAGIC = b"\0asm\1\0\0\0"
_TABLES = 4
# Sections stand in the order of their numbers, but for those of number 0, which stand anywhere,
# and that of tags, 13, which comes later.
_REFERENCES = (0x70, 0x6F)
_WITH_MAXIMUM = 1


def are_fixed(module: bytes, elements_max: int) -> bool:
    """Whether all tables together have so many elements at most, for ever.

    Args:
        module: which an engine has taken, or will take.
        elements_max: of all of them.

    Returns:
        False where that is not plain to see.
    """
    try:
        at = _table_section(module)
        return at is None or _are_fixed(module, at, elements_max)
    except (IndexError, ValueError):
        return False


def _table_section(module: bytes) -> int | None:
    """Where its content begins; None where there is none.

    Raises:
        IndexError: the module ends too soon.
        ValueError: it is none.
    """
    if not module.startswith(_MAGIC):
        raise ValueError("no module")
    at = len(_MAGIC)
    while at < len(module):
        number = module[at]
        size_bytes, at = _number(module, at + 1)
        if number == _TABLES:
            return at
        if number > _TABLES:
            return None
        at += size_bytes
    return None


def _are_fixed(module: bytes, at: int, elements_max: int) -> bool:
    count, at = _number(module, at)
    elements = 0
    for _ in range(count):
        if module[at] not in _REFERENCES or module[at + 1] != _WITH_MAXIMUM:
            return False
        least, at = _number(module, at + 2)
        most, at = _number(module, at)
        elements += most
        if least != most or elements > elements_max:
            return False
    return True


def _number(module: bytes, at: int) -> tuple[int, int]:
    """An unsigned number (LEB128, 32 bits), and what comes behind it.

    Raises:
        IndexError: the module ends too soon.
        ValueError: it is too long.
    """
    value = 0
    for shift in range(0, 35, 7):
        byte = module[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number without end")
