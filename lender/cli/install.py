"""Make lenderd, or with --broker the broker, a service: it starts by itself, now and later.

Writes the unit (systemd) or the property list (launchd), and switches it on. Run again, it does
what is missing; after an upgrade it writes the unit anew, and leaves alone what you changed. It
grants nothing: nothing runs here before you type `lender grant`. `lender uninstall` undoes it.
"""

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path

from lender.cli.exits import CommandError, Exit
from lender.cli.installing import host, launchd, systemd, templates
from lender.cli.installing.carrying_out import carry_out
from lender.cli.installing.plan import Name, Plan, Target, as_json, told
from lender.cli.owner import print_json
from lender.cli.state_choice import Choice, serves
from lender.cli.words import say
from lender.service.places import state_home
from lender.state.folder import SYSTEM_STATE, StateFolder

EXAMPLES = """\
  lender install                           lenderd for you, as long as you are logged in
  lender install --dry-run                 only say what would be done
  sudo lender install --system             lenderd for a machine that nobody logs in to
  sudo lender install --system --broker    the broker for such a machine"""

UNITS = Path(__file__).with_name("installing") / "units"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_options(parser)
    parser.add_argument(
        "--replace", action="store_true", help="also a unit that was edited; a copy of it is kept"
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what `lender uninstall` takes, too."""
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument(
        "--user", action="store_false", dest="system", help="a service of your own (the default)"
    )
    whose.add_argument(
        "--system", action="store_true", help="one of the machine, for an account of its own"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--broker", action="store_true", help="the broker instead of lenderd")
    what.add_argument(
        "--agent",
        action="store_true",
        help="what tells the machine's lenderd whether you are here: see lender agent",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    parser.set_defaults(system=False)


def run(args: argparse.Namespace) -> int:
    """Look, tell, do, tell."""
    target = target_of(args)
    manager = host.manager()
    if not (args.dry_run and target.system):
        host.check_who(target, os.getuid(), os.environ)
    programs = host.programs()
    host.check_kept(target, programs.values())
    if target.system:
        for path in (programs[target.name], sys.executable):
            host.check_reach(path)
    try:
        if manager == "systemd":
            plan = _for_systemd(target, programs, replace=args.replace)
        else:
            plan = _for_launchd(target, programs, replace=args.replace)
    except templates.PathError as error:
        raise CommandError(Exit.FAILED, str(error)) from error
    plan = Plan(plan.steps, (*plan.notes, *_beside(target)))
    finish(args, "install", f"{target.name} as {target.whose}, by {manager}", plan)
    if not args.json:
        say(_closing(target, programs["lender"], dry=args.dry_run))
    return Exit.DONE


def target_of(args: argparse.Namespace) -> Target:
    """Return what the options mean.

    Raises:
        CommandError: there is no such thing.
    """
    name: Name = "lenderd"
    if args.broker:
        name = "lender-broker"
    elif args.agent:
        name = "lender-agent"
        if args.system:
            raise CommandError(Exit.USAGE, "an agent belongs to a user: without --system")
    return Target(name, args.system)


def finish(args: argparse.Namespace, verb: str, headline: str, plan: Plan) -> None:
    """Say what will be done, do it unless it is only to be said, and say what was.

    Raises:
        CommandError: a step failed.
    """
    if not args.json:
        say([headline, *(f"→ {told(step)}" for step in plan.steps)])
    if not args.dry_run:
        carry_out(plan, (lambda _: None) if args.json else (lambda line: say([line])))
    if args.json:
        steps = {"steps": as_json(plan.steps), "notes": list(plan.notes)}
        print_json(verb, {"dry_run": args.dry_run, **steps})
        return
    if args.dry_run:
        say([*_notes(plan), "Nothing was changed: that is what would be done."])
    elif not plan.steps:
        say([*_notes(plan), "✓ it is so already"])
    else:
        say(_notes(plan))


def state_of(target: Target) -> Path:
    """Return where a service keeps its state, unless its settings name another place."""
    system = Path(SYSTEM_STATE)
    folder = system if target.system else Path(state_home(), system.name)
    return folder.with_name("lender-broker") if target.name == "lender-broker" else folder


def launchd_source(target: Target) -> str:
    """Return which property list belongs to a target.

    Raises:
        CommandError: there is none.
    """
    source = launchd.source(target)
    if source is None:
        raise CommandError(Exit.USAGE, f"on macOS {target.name} is not {target.whose}")
    return source


def _check_alone(target: Target, *, runs: bool) -> None:
    """See that no lenderd that is no service holds the folder that the service would serve.

    Raises:
        CommandError: one does.
    """
    state = state_of(target)
    if target.name == "lenderd" and not runs and serves(StateFolder(state)):
        text = f"a lenderd that is no service serves {state}: end it first, then run this again"
        raise CommandError(Exit.FAILED, text)


def _beside(target: Target) -> list[str]:
    """Say which other lenderds there are: both would lend what is spare."""
    if target.name != "lenderd":
        return []
    others = Choice(StateFolder(state_of(target)), named=False).others()
    words = "another lenderd lends this machine already, and counts the same cores as spare"
    mend = "" if target.system else "; to tell it whether you are here: lender install --agent"
    return [f"{words}: {other.path}{mend}" for other in others]


def _for_systemd(target: Target, programs: dict[str, str], *, replace: bool) -> Plan:
    shipped = UNITS / "systemd"
    units = {
        name: templates.unit((shipped / path).read_text(), programs)
        for name, path in systemd.sources(target).items()
    }
    accounts = (shipped / systemd.ACCOUNTS).resolve()
    found = host.systemd_service(target)
    _check_alone(target, runs=found.active or found.changing)
    return systemd.install(target, units, accounts, found, replace=replace)


def _for_launchd(target: Target, programs: dict[str, str], *, replace: bool) -> Plan:
    source = launchd_source(target)
    shipped = (UNITS / "launchd" / source).read_text()
    text = templates.plist(shipped, programs, str(Path.home()))
    host.check_account(target)
    found = host.launchd_service(target, source)
    _check_alone(target, runs=found.loaded)
    return launchd.install(target, text, found, replace=replace)


def _notes(plan: Plan) -> list[str]:
    return [f"! {note}" for note in plan.notes]


def _closing(target: Target, program: str, *, dry: bool) -> list[str]:
    if dry:
        return []
    verb = "lender" if shutil.which("lender") else shlex.quote(program)
    if target.name == "lender-broker":
        return [
            "Its settings: broker.toml; `embedded = true` there has it run a NATS server itself."
        ]
    if target.name == "lender-agent":
        return ["It tells lenderd whether you are here, and nobody else anything."]
    agree = f"sudo {verb} grant" if target.system else f"{verb} grant"
    return [f"Nothing runs here until you agree: {agree}. What is wrong: {verb} doctor."]
