"""The limits at which lent work steps back, and what other limits would have lent.

`show` prints the limits of your lenderd.toml, or of the file that you name, as lenderd takes them
up when it starts: it says of which file. `replay` holds the readings of the last days, which
lenderd keeps on this machine alone, against today's limits and against those of a changed
lenderd.toml: how much could have been lent, and how often lent work would have had to step back.
"""

import argparse
import os
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lender.cli.exits import CommandError, Exit
from lender.cli.limit_words import limit_lines
from lender.cli.owner import add_options, open_state, print_json
from lender.cli.words import count, duration, moment, say
from lender.core.policy import Policy, Rung
from lender.core.replay import Replay, Replayer
from lender.daemon.settings import DaemonSettings
from lender.daemon.signal_history import SignalHistory
from lender.service.settings import SettingsError, find_file, load

EXAMPLES = """\
  lender policy show
  lender policy replay
  lender policy replay --days 2 --config changed.toml"""

_DAY_S = 86_400.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("what", nargs="?", choices=("show", "replay"), default="show")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="a lenderd.toml with changed limits"
    )
    parser.add_argument("--days", type=float, default=7.0, metavar="N", help="so many (7)")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Show, or replay."""
    usual = find_file(None, "lenderd.toml")
    today = _read(usual)
    changed = _read(args.config) if args.config else None
    cores = float(os.cpu_count() or 1)
    if args.what == "show":
        shown = changed or today
        policy = _policy(shown, cores)
        if shown.mqtt is not None:
            policy = policy.under(shown.mqtt.conditions())
        file, variables = args.config or usual, sorted(filter(_is_setting, os.environ))
        if args.json:
            told = {"cores": cores, "file": file and str(file), "environment": variables}
            print_json("policy", {**told, "policy": _plain(asdict(policy))})
        else:
            say([_source(file, variables), *limit_lines(policy)])
        return Exit.DONE
    columns = {"today": _replayer(today, cores)}
    if changed is not None:
        columns["changed"] = _replayer(changed, cores)
    history = SignalHistory(open_state(args).path / "signals")
    try:
        for now, signals in history.read(time.time() - args.days * _DAY_S):
            for one in columns.values():
                one.take(now, signals)
    except OSError as error:
        raise CommandError(Exit.FAILED, f"can't read the readings: {error.strerror}") from error
    _tell({name: one.outcome for name, one in columns.items()}, as_json=args.json)
    return Exit.DONE


def _tell(columns: dict[str, Replay], *, as_json: bool) -> None:
    if as_json:
        print_json("policy-replay", {name: _as_json(one) for name, one in columns.items()})
    elif not columns["today"].measured_s:
        raise CommandError(
            Exit.FAILED, "no readings of these days: lenderd records them while it runs"
        )
    else:
        say(_report(columns))


def _read(path: Path | None) -> DaemonSettings:
    try:
        return load(DaemonSettings, path, {})
    except SettingsError as error:
        raise CommandError(Exit.USAGE, str(error)) from error


def _is_setting(variable: str) -> bool:
    return variable.startswith("LENDERD_")


def _source(file: Path | None, variables: list[str]) -> str:
    """Whose limits they are: a lenderd of another user or unit reads another file."""
    said = f"As in {file}" if file else "The defaults: you have no lenderd.toml"
    return f"{said}{', and ' + ', '.join(variables) + ' of this shell' if variables else ''}."


def _policy(settings: DaemonSettings, cores: float) -> Policy:
    return settings.policy.policy(
        cores,
        reserve_memory_bytes=settings.reserve_memory_bytes,
        yield_cpu_others=settings.yield_cpu_others,
    )


def _replayer(settings: DaemonSettings, cores: float) -> Replayer:
    slots = settings.slots or max(1, int(cores) - 1)
    return Replayer(_policy(settings, cores), cores, slots)


def _report(columns: dict[str, Replay]) -> list[str]:
    first = columns["today"]
    without_s = first.until - first.since - first.measured_s
    asleep = f", {duration(without_s)} without any" if without_s >= 60 else ""
    rows: list[tuple[str, list[str]]] = [("", list(columns))]

    def row(label: str, cells: list[str]) -> None:
        rows.append((label, cells))

    replays = list(columns.values())
    row("core-hours to lend", [f"{sum(one.lent_core_s.values()) / 3600:.1f}" for one in replays])
    for rung in reversed(Rung):
        row(f"  {rung.name.lower()}", [_share(one, rung) for one in replays])
    row("stepped in", [count(one.stepped_in.total(), "time") for one in replays])
    signals = sum((one.stepped_in for one in replays), Counter[str]())
    for signal, _ in signals.most_common():
        row(f"  {signal}", [f"{one.stepped_in[signal]}" for one in replays])
    width = max(len(label) for label, _ in rows)
    cell_width = max(len(cell) for _, cells in rows for cell in cells)
    return [
        f"{duration(first.measured_s)} of readings since {moment(first.since)}{asleep}",
        *(
            f"{label:<{width}}  {'  '.join(cell.rjust(cell_width) for cell in cells)}"
            for label, cells in rows
        ),
    ]


def _share(one: Replay, rung: Rung) -> str:
    return (
        f"{100 * one.spent_s[rung] / one.measured_s:.0f} % of the time" if one.measured_s else "-"
    )


def _as_json(one: Replay) -> dict[str, Any]:
    return {
        "since": one.since,
        "until": one.until,
        "measured_s": one.measured_s,
        "spent_s": {rung.name.lower(): seconds for rung, seconds in one.spent_s.items()},
        "lent_core_s": {rung.name.lower(): amount for rung, amount in one.lent_core_s.items()},
        "stepped_in": dict(one.stepped_in.most_common()),
    }


def _plain(value: Any) -> Any:  # noqa: ANN401  # a record's fields
    """Rungs by name, and null where nothing bounds."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, Rung):
        return value.name.lower()
    return None if value == float("inf") else value
