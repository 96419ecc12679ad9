"""Values that functions returned, as a lender sends them back. Pure.

A lender is a stranger's machine: whatever it answers may be forged. Unpickling runs code that the
pickle names, so a pickle from a lender is a program from a stranger. Plain data comes in an
encoding that can only be data; everything else is a pickle, which is opened for a caller who says
that every lender of the job is to be trusted with this very machine.
"""

import base64
import json
import pickle
from collections import Counter
from collections.abc import Iterable
from typing import Any

from lender.client.errors import ContentFault, UntrustedValue

_SAME_HASH_MAX = 64


def decode(content: bytes, *, trust: bool = False) -> Any:  # noqa: ANN401 - anything that a function returns
    """Return the value of a python task.

    The first byte says what follows: `b` bytes, `j` JSON, `p` a pickle. In JSON a list is a list;
    an object has one entry and stands for a tuple (`t`: its list), bytes (`b`: base64), a large
    int (`i`: hexadecimal), a dict whose keys are strings (`d`) or any other dict (`m`: its pairs).

    Args:
        content: the task's value.
        trust: unpickle it, if it is a pickle.

    Raises:
        UntrustedValue: it is a pickle, and is not trusted.
        ContentFault: it is none of these.
    """
    kind, rest = content[:1], content[1:]
    if kind == b"b":
        return rest
    if kind == b"p" and not trust:
        raise UntrustedValue
    try:
        if kind == b"j":
            return _untagged(json.loads(rest))
        if kind == b"p":
            return pickle.loads(rest)  # noqa: S301 - the caller says so
    except Exception as error:
        # Out of a pickle, whatever its classes raise.
        raise ContentFault(
            f"the task's value can't be read ({type(error).__name__}: {error})",
            "ask which lender sent it, and run the task again",
        ) from error
    raise ContentFault("the task's value is of no known kind", "update this client")


def _untagged(tree: Any) -> Any:  # noqa: ANN401 - see decode
    if isinstance(tree, list):
        return [*map(_untagged, tree)]  # half as deep as a comprehension, and as when it was made
    if not isinstance(tree, dict):
        return tree
    ((tag, content),) = tree.items()
    match tag, content:
        case "t", list():
            return tuple(map(_untagged, content))
        case (("b" | "i"), str()):
            return base64.b64decode(content, validate=True) if tag == "b" else int(content, 16)
        case "d", dict():
            return {key: _untagged(one) for key, one in content.items()}
        case "m", list():
            pairs = [(_untagged(key), _untagged(one)) for key, one in content]
            _check_spread(key for key, _ in pairs)
            return dict(pairs)
    raise ValueError(f"unknown tag {tag!r}")


def _check_spread(keys: Iterable[object]) -> None:
    """See that few keys have the same hash: a dict of such keys takes the square of their time.

    Numbers have the same hash in every process, so a liar can choose them: i * (2**61 - 1), all 0.
    The hashes themselves are ints that differ in theirs.

    Raises:
        ValueError: they are many.
    """
    counted = Counter(map(hash, keys))
    if counted and max(counted.values()) > _SAME_HASH_MAX:
        raise ValueError("keys of a dict are chosen to collide")
