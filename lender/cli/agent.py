"""Tell a lenderd that runs as a system service whether you are here. Runs until it is ended.

Such a service can't see your desktop's idle time, films and games; this does, and tells it
nothing else, nobody else, and only the current moment. Start it with your session: the user unit
lender-agent.service does.
"""

import argparse
import os
import signal
import sys
import threading

from lender.cli.exits import Exit
from lender.cli.owner import add_options, find_state
from lender.daemon.agent import tell_forever
from lender.daemon.control_client import ask
from lender.sensors.presence import PresenceSensors, session_sources

EXAMPLES = """\
  lender agent
  systemctl --user enable --now lender-agent"""

_ANSWER_S = 2.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_options(parser, document=False)


def run(args: argparse.Namespace) -> int:
    """Tell until a signal comes."""
    socket = find_state(args, as_guest=True).control_socket
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    sensors = PresenceSensors(session_sources(), owner_uid=os.getuid())
    sensors.watch_closely(True)
    sensors.start()
    try:
        tell_forever(
            sensors.read,
            lambda request: ask(socket, request, _ANSWER_S),
            stopping,
            lambda line: print(line, file=sys.stderr, flush=True),
        )
    finally:
        sensors.close()
    return Exit.DONE
