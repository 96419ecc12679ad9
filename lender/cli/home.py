"""Let your home automation pause this machine: print the file that signs its commands.

The file goes into Home Assistant's folder `custom_templates/`; it holds the key that commands of
your house are signed by, which is made here if there is none. Whoever has it can pause and revoke
on this machine, and resume what was paused by MQTT; nobody can grant by it.
"""

import argparse
from pathlib import Path

from lender.cli.exits import CommandError, Exit
from lender.cli.owner import add_options, open_state, print_json, tell
from lender.cli.words import complain, printable
from lender.core.home_commands import CommandKey
from lender.daemon.home_assistant import macro, macro_file
from lender.daemon.home_settings import node_name
from lender.daemon.settings import DaemonSettings
from lender.service.settings import SettingsError, find_file, load
from lender.state.folder import StateFolder
from lender.state.home_key import make_home_key, read_home_key

EXAMPLES = """\
  lender home > lender_desk.jinja
  lender home --new-key > lender_desk.jinja"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--new-key", action="store_true", help="make another key; the one before counts no more"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="lenderd's TOML file, while it does not run"
    )
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Make the key if need be, and print the file."""
    state = open_state(args)
    home = tell(state, "status").reply.get("home")
    node = str(home["node"]) if isinstance(home, dict) else _node(args.config)
    key = None if args.new_key else read_home_key(state)
    made = key is None
    if key is None:
        key = _made(state)
    if args.json:
        fields = {"node": node, "file": macro_file(node), "content": macro(node, key)}
        print_json("home", {**fields, "made": made})
        return Exit.DONE
    print(macro(node, key), end="")
    file = f"custom_templates/{macro_file(node)}"
    complain(
        f"{'A new key was made' if made else 'This is the key that counts'}; keep it to yourself.",
        f"1. Put what is above into {file}, in Home Assistant's configuration folder.",
        "2. In Home Assistant run the action homeassistant.reload_custom_templates.",
        *([] if isinstance(home, dict) else ["3. Add [mqtt] to lenderd.toml, and start lenderd."]),
    )
    return Exit.DONE


def _made(state: StateFolder) -> CommandKey:
    try:
        return make_home_key(state)
    except OSError as error:
        fault = f"{state.home_key}: {error.strerror or error}"
        raise CommandError(Exit.FAILED, f"no key could be kept: {fault}") from error


def _node(config: Path | None) -> str:
    """Return what lenderd would be called, by its settings."""
    try:
        settings = load(DaemonSettings, find_file(config, "lenderd.toml"), {})
    except SettingsError as error:
        raise CommandError(Exit.USAGE, printable(str(error))) from error
    if settings.mqtt is not None:
        return settings.mqtt.node_of(settings.name)
    return node_name(settings.name)
