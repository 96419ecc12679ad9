"""`lender status --watch`: again each second, redrawn on a terminal, appended anywhere else."""

import json
import os
import shutil
import sys
import time
from typing import NoReturn

from lender.cli.columns import fit
from lender.cli.exits import Exit
from lender.cli.reading import Reading, read_status
from lender.cli.status_lines import head, lines
from lender.cli.words import printable, say
from lender.state.folder import StateFolder

_EVERY_S = 1.0
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\033[H", "\033[K", "\033[J"
_HIDE_CURSOR, _SHOW_CURSOR = "\033[?25l", "\033[?25h"
_CLEAR = "\033[2J"


def watch(state: StateFolder, *, as_json: bool) -> int:
    """Show the status until Ctrl-C, which is how this ends well."""
    redraws = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not as_json
    if redraws:
        print(_HIDE_CURSOR + _CLEAR, end="")
    try:
        _show(state, as_json=as_json, redraws=redraws)
    except KeyboardInterrupt:
        pass
    finally:
        if redraws:
            print(_SHOW_CURSOR, flush=True)
    return Exit.DONE


def _show(state: StateFolder, *, as_json: bool, redraws: bool) -> NoReturn:
    shown = ""
    while True:
        reading = read_status(state)
        if as_json:
            fields = {"daemon": reading.told.outcome, **reading.fields}
            print(json.dumps({"schema": "lender.status/1", **fields}))
        elif redraws:
            _redraw(reading)
        else:
            shown = _append(reading, shown)
        sys.stdout.flush()
        time.sleep(_EVERY_S)


def _redraw(reading: Reading) -> None:
    columns, rows = shutil.get_terminal_size()
    print(_HOME, end="")
    say(fit(line, columns - 1) + _CLEAR_LINE for line in lines(reading)[: rows - 2])
    print(_CLEAR_BELOW + time.strftime("  %H:%M:%S, Ctrl-C ends"), end=_CLEAR_LINE)


def _append(reading: Reading, shown: str) -> str:
    """All of it at first, then a line for each change that matters."""
    jobs = ", ".join(str(one.get("job")) for one in reading.fields.get("running", []))
    now = f"{head(reading.fields, time.time())}; running: {printable(jobs) or 'nothing'}"
    if not shown:
        say(lines(reading))
    elif now != shown:
        print(time.strftime("%H:%M:%S"), now)
    return now
