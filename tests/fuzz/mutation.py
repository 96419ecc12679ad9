"""Inputs made of those that are kept: cut, doubled, put together, with bytes and words changed."""

from hypothesis import strategies as st

from fuzz.target import INPUT_BYTES_MAX, Target

_NUMBERS = (b"-1", b"0", b"4294967296", b"1e999", b"9" * 40, b"NaN", b"Infinity", b"null", b"[]")
_BYTES = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xc1",
    b"\xdd\xff\xff\xff\xff",
    b"\n",
    b'"',
    b"[" * 2000,
)


def mutants(target: Target) -> st.SearchStrategy[bytes]:
    """Inputs for a target."""
    kept = [one[:INPUT_BYTES_MAX] for one in target.corpus().values()]
    words = st.sampled_from([*target.words, *_NUMBERS, *_BYTES]) | st.binary(max_size=8)
    change = st.tuples(st.integers(0, 4), st.integers(0, 1 << 16), st.integers(0, 64), words)
    changed = st.builds(
        _changed, st.sampled_from(kept), st.sampled_from(kept), st.lists(change, max_size=4)
    )
    return changed | st.binary(max_size=200)


def _changed(data: bytes, other: bytes, changes: list[tuple[int, int, int, bytes]]) -> bytes:
    for kind, place, length, word in changes:
        at = place % (len(data) + 1)
        match kind:
            case 0:  # cut
                data = data[:at] + data[at + length :]
            case 1:  # double
                data = data[:at] + data[at : at + length] * 2 + data[at + length :]
            case 2:  # put in
                data = data[:at] + word + data[at:]
            case 3:  # write over
                data = data[:at] + word + data[at + len(word) :]
            case _:  # go on with another
                data = data[:at] + other[place % (len(other) + 1) :]
    return data[:INPUT_BYTES_MAX]
