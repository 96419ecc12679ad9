"""Whether lending is paused, on disk: the one file that `lender pause` writes.

Plain values and light imports: a pause must not wait for what reading grants needs. See
`consent_files` for the same in the core's words.
"""

import json

from lender.daemon.durable import write_whole
from lender.daemon.state import StateFolder


def write_paused(state: StateFolder, paused_at: float, *, paused: bool) -> None:
    """Keep the owner's last word, durably.

    Raises:
        OSError: it could not be made durable.
    """
    content = {"v": 1, "paused": paused, "paused_at": paused_at}
    write_whole(state.intent, json.dumps(content).encode())


def read_paused(state: StateFolder) -> tuple[bool, float]:
    """Whether lending is paused, and since when; what can't be read counts as a pause."""
    try:
        content = json.loads(state.intent.read_bytes())
        return content["paused"] is not False, float(content["paused_at"])
    except FileNotFoundError:
        return False, 0.0
    except (OSError, ValueError, KeyError, TypeError):
        return True, 0.0
