"""The tasks of an array as people type them, for argparse."""

import argparse
import re

from pydantic import ValidationError

from lender.client import Array


def indices(text: str) -> Array:
    """Read `0-999` as 1000 tasks, and `3,7-9` as four of those that 10 would be."""
    spans: list[tuple[int, int]] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part)
        alone = part == text and "-" not in part  # as likely meant as their number
        if match is None or alone or int(match[2] or match[1]) < int(match[1]):
            raise argparse.ArgumentTypeError(
                f"{text!r} are no indices; write 0-999 for 1000 tasks, 3,7-9 for some"
            )
        spans.append((int(match[1]), int(match[2] or match[1])))
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    tasks = tuple((first, last - first + 1) for first, last in merged)
    try:
        count = merged[-1][1] + 1
        return Array(count=count, tasks=() if tasks == ((0, count),) else tasks)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise argparse.ArgumentTypeError(f"{text!r}: {fault['msg']}") from error
