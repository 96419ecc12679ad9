"""Where a key stands in a TOML file: what parses it does not tell. Pure."""

import re

Place = tuple[str | int, ...]
"""Keys and indices, from the top."""


def line_of(text: str, place: Place) -> int:
    """The line where a key stands; of the nearest above it that does, where it stands in none."""
    names = [str(one) for one in place]
    found, table = 1, ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.fullmatch(r"\s*\[+([^\[\]]+)\]+\s*(#.*)?", line):
            table = header[1].strip()
            if table == names[0]:
                found = number
        elif key := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            whole = ".".join(filter(None, [table, re.sub("[\"']", "", key[1])]))
            if ".".join(names) == whole or ".".join(names).startswith(f"{whole}."):
                return number
    return found


def line_of_fault(text: str, message: str) -> tuple[int, str]:
    """Return the line that a fault of the parser's names at its end, and what it says before."""
    said = re.fullmatch(
        r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", message, re.DOTALL
    )
    if said is None:
        return 1, message
    return int(said[2] or max(1, len(text.splitlines()))), said[1]
