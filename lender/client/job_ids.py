"""Job ids that sort by the time of their making: 48 bits of milliseconds, 80 random bits.

The layout and the alphabet (Crockford's base32) are those of the ULID specification.
"""

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CHARS = 26
ENTROPY_BYTES = 10


def job_id(now: float, entropy: bytes) -> str:
    """Return a new job id of 26 characters.

    Args:
        now: seconds since the epoch, until the year 10889.
        entropy: ten random bytes; two jobs of one millisecond differ in nothing else.

    Raises:
        ValueError: `entropy` has another length, or `now` is out of range.
    """
    milliseconds = int(now * 1000)
    if len(entropy) != ENTROPY_BYTES or not 0 <= milliseconds < 1 << 48:
        raise ValueError("a job id is made from ten random bytes and a time after 1970")
    number = milliseconds << 80 | int.from_bytes(entropy)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range((_CHARS - 1) * 5, -1, -5))
