"""Undo `lender install`: stop the service, switch it off, remove its unit.

What it ran is ended as at any stop: handed back, then killed. Your drop-ins and the state folder
stay (grants, identity, the log of what ran), so that installing again goes on as before; --purge
deletes that folder, too, for good.
"""

import argparse
import os
import sys
from pathlib import Path

from lender.cli import install
from lender.cli.exits import CommandError, Exit
from lender.cli.installing import host, launchd, systemd
from lender.cli.installing.plan import Plan, Target, Wipe

EXAMPLES = """\
  lender uninstall --dry-run
  lender uninstall
  sudo lender uninstall --system
  lender uninstall --purge                 and delete grants, identity, the log of what ran"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    install.add_options(parser)
    parser.add_argument(
        "--purge", action="store_true", help="delete lenderd's state folder, too; it asks"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace) -> int:
    """Look, tell, do, tell."""
    target = install.target_of(args)
    manager = host.manager()
    if not (args.dry_run and target.system):
        host.check_who(target, os.getuid(), os.environ)
    if args.purge and target.name != "lenderd":
        text = "--purge is lenderd's: the broker's folder has keys of a fleet; remove it by hand"
        raise CommandError(Exit.USAGE, text)
    if manager == "systemd":
        plan = systemd.uninstall(target, host.systemd_service(target))
        plan = Plan(plan.steps, (*plan.notes, *_of_the_machine(target)))
    else:
        found = host.launchd_service(target, install.launchd_source(target))
        plan = launchd.uninstall(target, found)
    plan = _with_state(target, plan, purge=args.purge)
    if args.purge and not args.yes and not args.dry_run:
        _ask(install.state_of(target))
    headline = f"{target.name} is no longer {target.whose}, by {manager}"
    install.finish(args, "uninstall", headline, plan)
    return Exit.DONE


def _of_the_machine(target: Target) -> list[str]:
    """Say that the machine's own service is another, which whoever typed this may have meant."""
    machines = Target(target.name, system=True)
    if target.system or target.name not in systemd.RUNS_AS:
        return []
    if not host.systemd_service(machines).enabled:
        return []
    return [f"{machines.name} as {machines.whose} stays: sudo lender uninstall --system"]


def _with_state(target: Target, plan: Plan, *, purge: bool) -> Plan:
    state = install.state_of(target)
    if target.name == "lender-agent" or not state.is_dir():
        return plan
    if purge:
        return Plan((*plan.steps, Wipe(state)), plan.notes)
    return Plan(plan.steps, (*plan.notes, f"{state} stays, with all that is in it"))


def _ask(state: Path) -> None:
    print(f"Delete {state} for good? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError(Exit.FAILED, "nothing was changed")
