"""`make recording`: what a submitter sees on a terminal, as text: submit, logs -f, why, cancel.

Two machines of its own lend to one submitter, whose shell runs in tmux; what is typed and what
stands on the screen then is printed, and kept in build/recording.txt. Everything else is gone at
the end, also of an interrupt or a kill.
"""

import os
import shutil
import sys
from pathlib import Path

from deploy.local.fleet import Fleet, FleetError, command
from deploy.local.screen import COLUMNS, Screen
from deploy.local.stage import end_on_sigterm, temporary_folder

RECORDING = Path(__file__).resolve().parents[2] / "build" / "recording.txt"
FILE_MIB = 64
CHATTY = "'for n in 1 2 3 4 5 6 7 8 9; do echo line $n >&2; sleep 1; done'"


class Recording:
    """Frames, each with what it shows."""

    def __init__(self) -> None:
        self._frames: list[str] = []

    def frame(self, title: str, screen: str) -> None:
        """Keep and print what stands on a screen."""
        rule = f"── {title} ".ljust(COLUMNS, "─")
        self._frames.append(f"{rule}\n{screen}\n")
        print(self._frames[-1], flush=True)

    def save(self) -> None:
        """Write them all."""
        RECORDING.parent.mkdir(parents=True, exist_ok=True)
        RECORDING.write_text("\n".join(self._frames))


def main() -> int:
    """Record; 0 when all that was expected came on the screen."""
    end_on_sigterm()
    if not shutil.which("tmux"):
        print("recording: tmux is missing (sudo apt-get install tmux)", file=sys.stderr)
        return 1
    recording = Recording()
    try:
        with (
            temporary_folder("recording") as folder,
            Fleet(folder, ("desk", "attic"), workloads=("command",)) as fleet,
            Screen(_home(folder), _environment(fleet, folder)) as screen,
        ):
            _submit(screen, recording)
            _follow_and_cancel(screen, recording)
            _interrupted(screen, recording)
    except KeyboardInterrupt:
        print("\ninterrupted; everything was stopped and removed", flush=True)
        return 130
    except FleetError as error:
        print(f"recording: {error}", file=sys.stderr)
        return 1
    recording.save()
    print(f"kept in {RECORDING}")
    return 0


def _submit(screen: Screen, recording: Recording) -> None:
    """Commands, a file, an array."""
    screen.type("lender submit -- sh -c 'echo hello from a machine that lends'; echo $?")
    recording.frame("a command; its exit code is the command's", screen.until_prompt())
    screen.clear()
    screen.type("lender submit --in big.bin -- sha256sum big.bin")
    recording.frame("a file on its way", screen.until("sending big.bin"))
    recording.frame("and its digest", screen.until_prompt())
    screen.clear()
    screen.type("lender map --array 0-29 --into values -- sh -c 'sleep 0.2; echo {task}'")
    recording.frame("an array under way", screen.until(r"\] [12]\d/30"))
    screen.until_prompt()
    screen.type("cat values/? | xargs")
    recording.frame("and its values", screen.until("0 1 2 3"))


def _follow_and_cancel(screen: Screen, recording: Recording) -> None:
    """A job that goes on by itself: its log, what it waits for, its end."""
    screen.clear()
    screen.type(f"JOB=$(lender submit --no-wait --name chatty -- sh -c {CHATTY})")
    screen.until_prompt()
    screen.type("lender logs -f $JOB")
    recording.frame("what it writes, while it runs", screen.until("line 3"))
    screen.press("C-c")
    screen.until_prompt()
    screen.type("lender why $JOB")
    recording.frame("Ctrl-C ends the watching, not the job", screen.until_prompt())
    screen.clear()
    screen.type("lender cancel $JOB; lender why $JOB; lender jobs")
    recording.frame("its end", screen.until_prompt())


def _interrupted(screen: Screen, recording: Recording) -> None:
    """Ctrl-C asks once, and cancels on the second."""
    screen.clear()
    screen.type(f"lender submit --follow -- sh -c {CHATTY}")
    screen.until("line 2")
    screen.press("C-c")
    recording.frame("Ctrl-C while waiting", screen.until("Ctrl-C again cancels it"))
    screen.press("C-c")
    screen.until_prompt()
    screen.type("echo $?")
    recording.frame("Ctrl-C once more", screen.until_prompt())


def _environment(fleet: Fleet, folder: Path) -> dict[str, str]:
    return {
        "PATH": f"{Path(command('lender')).parent}:{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "LENDER_URL": fleet.url,
        "LENDER_KEY": str(fleet.key),
        "LENDER_STATE": str(folder / "none"),  # who submits there lends nothing
        "LANG": "C.UTF-8",
    }


def _home(folder: Path) -> Path:
    home = folder / "home"
    home.mkdir()
    with (home / "big.bin").open("wb") as file:
        for _ in range(FILE_MIB):
            file.write(os.urandom(1 << 20))
    return home


if __name__ == "__main__":
    sys.exit(main())
