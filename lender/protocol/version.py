"""Which version of the wire this package speaks."""

from typing import Final

PROTOCOL: Final = 1
"""Of what goes between submitters, brokers and lenders: `v` in their messages (docs/protocol.md).

Who speaks another one is not understood, so a broker says its own where all may read it.
"""
