"""What to do for a service of launchd, given what was found. Pure. Not yet run on a Mac."""

from dataclasses import dataclass
from pathlib import Path

from lender.cli.installing import templates
from lender.cli.installing.plan import Plan, Remove, Run, Step, Target, Write, draft, kept

SYSTEM_FOLDER = Path("/Library/LaunchDaemons")
USER_FOLDER = "Library/LaunchAgents"
"""Below the user's home."""
_ENDS_WITHIN_S = 45.0
"""More than the property lists' ExitTimeOut, after which launchd kills."""
ACCOUNT = "_lender"
"""Whom a daemon turns into."""

_LABELS = {"lenderd": "lender.lenderd", "lender-broker": "lender.broker"}


@dataclass(frozen=True, slots=True)
class Found:
    """The service as it is.

    Attributes:
        file: where its property list belongs.
        there: what lies there; None: nothing.
        loaded: launchd knows it.
        uid: of this user.
        outdated: what is loaded does not run, or was started before its file, or the version that
            is installed, came.
        left: of an earlier install that was cut off, or of who had a file there.
    """

    file: Path
    there: str | None
    loaded: bool
    uid: int
    outdated: bool = False
    left: frozenset[Path] = frozenset()


def source(target: Target) -> str | None:
    """Return where a target's property list lies in `launchd/`; None: there is none for it."""
    if target.name not in _LABELS or (target.system and target.name != "lenderd"):
        return None
    kind = "daemon" if target.system else "agent"
    return f"{kind}/{_LABELS[target.name]}.plist"


def domain(target: Target, uid: int) -> str:
    """Return in which of launchd's domains it lives (launchctl(1))."""
    return "system" if target.system else f"gui/{uid}"


def install(target: Target, text: str, found: Found, *, replace: bool) -> Plan:
    """Return what is to be done so that the service runs, now and later.

    Args:
        target: what, and whose.
        text: its property list, with the program's path.
        found: how it is.
        replace: a file that was edited gives way, and is kept.
    """
    steps: list[Step] = []
    place, wanted = domain(target, found.uid), templates.marked(text)
    label = found.file.stem
    if found.there != wanted:
        mine = found.there is None or templates.known(found.there) == "ours"
        if not mine and not replace:
            text = f"{found.file} is not as we wrote it, and is left alone; --replace keeps a copy"
            return Plan((), (text,))
        steps.append(Write(found.file, wanted, None if mine else kept(found.file)))
    if steps or found.outdated or not found.loaded:
        if found.loaded:
            steps.append(Run(("launchctl", "bootout", f"{place}/{label}"), may_fail=True))
        steps.append(Run(("launchctl", "enable", f"{place}/{label}")))
        # It is refused until what was there has ended, for which `bootout` does not wait.
        load = ("launchctl", "bootstrap", place, str(found.file))
        steps.append(Run(load, within_s=_ENDS_WITHIN_S if found.loaded else 0.0))
    return Plan(tuple(steps))


def uninstall(target: Target, found: Found) -> Plan:
    """Return what is to be done so that nothing of the service is left."""
    steps: list[Step] = []
    notes: list[str] = []
    if found.loaded:
        place = domain(target, found.uid)
        steps.append(Run(("launchctl", "bootout", f"{place}/{found.file.stem}")))
    if found.there is not None:
        match templates.known(found.there):
            case "ours":
                steps.append(Remove(found.file))
            case "edited":
                steps.append(Remove(found.file, kept(found.file)))
            case "foreign":
                notes.append(f"{found.file} was not written by us: it stays")
    if draft(found.file) in found.left:
        steps.append(Remove(draft(found.file)))
    if kept(found.file) in found.left:
        notes.append(f"{kept(found.file)} stays: it was there before, or you changed it")
    return Plan(tuple(steps), tuple(notes))
