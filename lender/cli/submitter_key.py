"""Checks a submitter's public nkey without third-party code."""

import base64
import binascii
import re

from lender.state.grant_file import SUBMITTER_PATTERN

_PREFIX_USER = 20 << 3  # U in base32; what follows has a part in its character


def is_public_key(text: str) -> bool:
    """Whether `text` is a public nkey of type user, checksum included.

    Base32 of a prefix byte, 32 key bytes and their CRC-16/XMODEM, low byte first (NATS nkeys).
    """
    if re.fullmatch(SUBMITTER_PATTERN, text) is None:
        return False
    raw = base64.b32decode(text)
    if raw[0] != _PREFIX_USER:
        return False
    return binascii.crc_hqx(raw[:-2], 0) == int.from_bytes(raw[-2:], "little")
