"""What strangers wrote, before people see it: it is shown, and steers nothing. Pure.

A task's output may hold sequences that move the cursor, set the title, or have the terminal type
for whoever sits there.
"""


def visible(text: str) -> str:
    """Return `text` with escapes for all but what prints, newlines and tabs."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()
