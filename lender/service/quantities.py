"""Sizes and durations as people type them, for argparse."""

import argparse
import re

_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_CHARS_MAX = 100  # far from what a float can't hold
_DURATION_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def size_bytes(text: str) -> int:
    """Read `512M`, `1.5G`, `2GiB` or plain bytes; units are powers of 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 512M or 2G")
    if len(text) > _CHARS_MAX:
        raise argparse.ArgumentTypeError("there is no such size")
    return int(float(match[1]) * _SIZE_UNITS[match[2].upper()])


def duration_s(text: str) -> float:
    """Read `90`, `90s`, `5m`, `2h` or `1d`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 90s, 5m, 2h or 1d")
    return float(match[1]) * _DURATION_UNITS[match[2]]
