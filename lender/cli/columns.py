"""How many columns of a terminal a text takes: names from elsewhere may have wide characters."""

import unicodedata


def columns_of(text: str) -> int:
    """Count a character of double width (Unicode annex 11) as two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def fit(text: str, columns: int) -> str:
    """Return as much of the text's beginning as has room."""
    text = text[:columns]
    while columns_of(text) > columns:
        text = text[:-1]
    return text
