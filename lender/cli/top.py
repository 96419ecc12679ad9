"""Your use against lent use on one screen, redrawn each second.

Keys: p pauses, r resumes, x withdraws every grant (asks once), q ends.
"""

import contextlib
import curses
import locale
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lender.cli import pause, resume, revocation
from lender.cli.exits import CommandError, Exit
from lender.cli.last_word import keep
from lender.cli.owner import DEFAULTS as OWNER_DEFAULTS
from lender.cli.owner import add_options, become_owner, find_state, is_owner, tell
from lender.cli.reading import Reading, read_status
from lender.cli.top_screen import ASCII, Glyphs, Rates, Style, screen
from lender.cli.words import count, duration
from lender.state.folder import StateFolder
from lender.state.intent_file import StoredIntent
from lender.state.withdrawal import EVERYTHING

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
  lender top"""

DEFAULTS = {key: value for key, value in OWNER_DEFAULTS.items() if key != "json"}

_EVERY_S = 1.0
_ESCAPE_MS = "25"
_QUESTION = "Withdraw every grant, kill and wipe what runs? y/n"
_OWNER_ONLY = "only the owner of this machine's lending may do that"


def configure(parser: "argparse.ArgumentParser") -> None:
    """Add the options."""
    add_options(parser, document=False)


def run(args: "argparse.Namespace") -> int:
    """Take the terminal, and give it back as it was, however this ends."""
    state = find_state(args, as_guest=True)
    owner = is_owner(state)
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or _is_dumb():
        raise CommandError(Exit.USAGE, "needs a terminal; try `lender status --watch`")
    if owner:
        become_owner(state)
    locale.setlocale(locale.LC_ALL, "")  # curses writes in the terminal's character set
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    os.environ.setdefault("ESCDELAY", _ESCAPE_MS)
    try:
        with _screen() as window:
            _Top(window, state, owner=owner).serve()
    except curses.error as error:
        raise CommandError(Exit.FAILED, f"this terminal can't show it: {error}") from error
    except KeyboardInterrupt:
        pass
    return Exit.DONE


@contextlib.contextmanager
def _screen() -> Iterator[curses.window]:
    """What curses.wrapper does, without its colours where NO_COLOR asks for none."""
    window = curses.initscr()
    try:
        curses.noecho()
        curses.cbreak()
        window.keypad(True)
        with contextlib.suppress(curses.error):  # a terminal that can't hide it
            curses.curs_set(0)
        if not os.environ.get("NO_COLOR"):
            with contextlib.suppress(curses.error):
                curses.start_color()
                curses.use_default_colors()
        yield window
    finally:
        window.keypad(False)
        curses.echo()
        curses.nocbreak()
        curses.endwin()


def _is_dumb() -> bool:
    return os.environ.get("TERM", "dumb") in ("", "dumb", "unknown")


def _end(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


class _Top:
    """The screen, and what its keys do."""

    def __init__(self, window: curses.window, state: StateFolder, *, owner: bool) -> None:
        self._window = window
        self._state = state
        self._owner = owner
        self._rates = Rates()
        self._message = ""
        self._message_until = 0.0
        self._asking = False
        self._styles = _styles()
        utf8 = locale.nl_langinfo(locale.CODESET).upper() == "UTF-8"
        self._glyphs = Glyphs() if utf8 else ASCII

    def serve(self) -> None:
        """Show and obey until q."""
        due, reading = 0.0, self._read()
        rates = self._rates.take(time.monotonic(), reading.fields.get("running", []))
        while True:
            self._draw(reading, rates)
            due = due if due > time.monotonic() else time.monotonic() + _EVERY_S
            self._window.timeout(max(1, int(1000 * (due - time.monotonic()))))
            pressed = self._window.getch()
            if pressed == ord("q") and not self._asking:
                return
            if pressed not in (-1, curses.KEY_RESIZE):
                self._obey(pressed)
            if pressed != curses.KEY_RESIZE:
                reading = self._read()
                rates = self._rates.take(time.monotonic(), reading.fields.get("running", []))

    def _read(self) -> Reading:
        reading = read_status(self._state)
        if machine := reading.fields.get("machine"):
            memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            machine.setdefault("memory_bytes", memory_bytes)
        return reading

    def _draw(self, reading: Reading, rates: dict[str, float]) -> None:
        if not self._asking and time.monotonic() > self._message_until:
            self._message = ""
        size = self._window.getmaxyx()
        self._window.erase()
        rows = screen(reading, rates, time.time(), size, self._message, self._glyphs)
        for line, row in enumerate(rows):
            self._window.move(line, 0)
            for text, style in row:
                self._window.addstr(text, self._styles[style])
        self._window.refresh()

    def _obey(self, pressed: int) -> None:
        if self._asking:
            self._asking = False
            self._say(self._revoke() if pressed in (ord("y"), ord("Y")) else "nothing withdrawn")
        elif pressed == ord("p"):
            self._say(self._pause())
        elif pressed == ord("r"):
            self._say(self._resume() if self._owner else _OWNER_ONLY)
        elif pressed == ord("x"):
            self._asking = self._owner
            self._say(_QUESTION if self._owner else _OWNER_ONLY)

    def _say(self, message: str) -> None:
        self._message, self._message_until = message, time.monotonic() + 5.0

    def _pause(self) -> str:
        started = time.monotonic()
        intent = StoredIntent(paused=True, paused_at=time.time())
        try:
            if self._owner:
                outcome = pause.pause_as_owner(self._state, intent, started)
            else:
                outcome = pause.pause_as_guest(self._state)
        except CommandError as error:
            return str(error)
        return " ".join(pause.lines_of(outcome))

    def _resume(self) -> str:
        fault = keep(self._state, StoredIntent(paused=False, paused_at=time.time()))
        if fault:
            return f"still paused, could not save otherwise: {fault}"
        told = tell(self._state, "resume")
        after = tell(self._state, "status").reply if told.outcome == "answered" else {}
        return " ".join(resume.lines_of(told, after))

    def _revoke(self) -> str:
        outcome = revocation.revoke(self._state, EVERYTHING)
        mark = "✓" if outcome.complete else "!" if outcome.verified else "✗"
        return (
            f"{mark} {count(len(outcome.grants), 'grant')} withdrawn, "
            f"{count(outcome.processes, 'process')} of {count(outcome.jobs, 'job')} killed "
            f"after {duration(outcome.stopped_s)}{''.join(_left_undone(outcome))}"
        )


def _left_undone(outcome: revocation.Outcome) -> Iterator[str]:
    """What of a revocation is not as it should be; each on its own, because each has its mend."""
    if not outcome.verified:
        yield "; not verified that none is left: lender revoke --all"
    if outcome.not_saved and outcome.set_aside:
        yield f"; not saved ({outcome.not_saved}), the grants' files were set aside instead"
    elif outcome.not_saved:
        yield f"; not saved ({outcome.not_saved}): free some space and revoke again"
    if outcome.scratch_left or outcome.purge_left:
        yield f"; not deleted: {', '.join([*outcome.scratch_left, *outcome.purge_left])}"
    if outcome.daemon == "silent":
        yield "; lenderd does not answer and could not be killed: end it by hand"


def _styles() -> dict[Style, int]:
    styles: dict[Style, int] = {
        "plain": curses.A_NORMAL,
        "bold": curses.A_BOLD,
        "dim": curses.A_DIM,
        "own": curses.A_NORMAL,
        "lent": curses.A_BOLD,
        "good": curses.A_BOLD,
        "warn": curses.A_BOLD,
        "title": curses.A_REVERSE,
    }
    if os.environ.get("NO_COLOR") or not curses.has_colors():
        return styles
    colours: dict[Style, int] = {
        "own": curses.COLOR_CYAN,
        "lent": curses.COLOR_GREEN,
        "good": curses.COLOR_GREEN,
        "warn": curses.COLOR_YELLOW,
    }
    for pair, (style, colour) in enumerate(colours.items(), start=1):
        curses.init_pair(pair, colour, -1)
        styles[style] |= curses.color_pair(pair)
    return styles
