"""`lenderd`: lends what this machine doesn't use, as far as its owner has agreed."""

import argparse
import asyncio
import gc
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from lender.daemon import leftovers
from lender.daemon.catalogue import CatalogueError
from lender.daemon.core_config import StartError
from lender.daemon.privilege import PrivilegeError, become_owner_of
from lender.daemon.settings import DaemonSettings
from lender.link.credentials import CredentialsError
from lender.service import logs, program
from lender.service.places import NoHomeError
from lender.service.settings import SettingsError, find_file, given, load
from lender.state.folder import AlreadyRunningError, StateFolder, default_state_path

EXAMPLES = """examples:
  lenderd                                 lend to the fleet at nats://127.0.0.1:4222
  lenderd --url nats://broker.lab:4222    lend to another fleet
  lenderd --config ~/.config/lender/lenderd.toml
Nothing runs before its owner has agreed: lender grant --help
"""

YOUNG = 10_000
"""Objects more than before until Python looks for garbage: results wait for their report by the
thousand, and none of them is any."""

_FAULTS = (
    PrivilegeError,
    CatalogueError,
    AlreadyRunningError,
    NoHomeError,
    StartError,
    CredentialsError,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    arguments = _parse(argv)
    try:
        said = given(DaemonSettings, vars(arguments))
        settings = load(DaemonSettings, find_file(arguments.config, "lenderd.toml"), said)
    except SettingsError as error:
        print(f"lenderd: {error}", file=sys.stderr)  # noqa: T201
        return 2
    logs.set_up(settings.log_level, settings.log_format)
    try:
        if arguments.end_leftovers:
            return 0 if _end_leftovers(settings) else 1
        _serve(settings)
    except _FAULTS as error:
        print(f"lenderd: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _end_leftovers(settings: DaemonSettings) -> bool:
    """End them as the user whose they are; returns whether nothing is left."""
    path = Path(settings.state or default_state_path()).absolute()
    if not path.exists():
        return True
    become_owner_of(path)
    return leftovers.end(StateFolder(path))


def _serve(settings: DaemonSettings) -> None:
    # A unit that stops asks for leftovers alone, and waits for us.
    with program.loading():
        import uvloop  # noqa: PLC0415

        from lender.daemon.lifetime import Lifetime  # noqa: PLC0415

    gc.set_threshold(YOUNG)

    async def serve() -> None:
        lifetime = Lifetime(settings)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lifetime.stop)
        await lifetime.run()

    uvloop.run(serve())


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lenderd",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, help="TOML file (default: lenderd.toml, if any)")
    parser.add_argument("--state", type=Path, help="state folder ($LENDER_STATE)")
    parser.add_argument("--url", help="NATS server of the fleet")
    parser.add_argument(
        "--creds",
        dest="credentials",
        type=Path,
        metavar="FILE",
        help="what that server lets us in by: an nkey seed, a .creds file, or user:password",
    )
    parser.add_argument("--name", help="what people call this machine")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--log-format", choices=("text", "json"))
    parser.add_argument(
        "--end-leftovers",
        action="store_true",
        help="kill what a lenderd that died has left here, and end; for its unit",
    )
    return parser.parse_args(argv)
