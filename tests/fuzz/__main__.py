"""`python -m fuzz`: each target for some minutes, led by what its inputs reach (atheris).

What is found is made small and laid beside the corpus that grew, in build/fuzz/<target>. Once it
is mended it goes into tests/fuzz/corpus, under a name that says what it was.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

PLACE: Final = Path("build/fuzz")
INSTRUMENTED: Final = ("lender", "broker", "workloads", "tarfile", "jeepney", "nkeys")
_SECONDS_MAX, _MEMORY_MIB_MAX = 10, 1536
"""Of one input: far above what `Target.attack` allows, since a shared machine may be slow."""


def main() -> int:
    """Attack what is named, or all; 0: nothing was found, 1: something, 2: can't be done here."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target (10)")
    parser.add_argument("--only", help="targets whose name begins so; several with commas")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--reproduce", type=Path, help="a file that was found; needs --only")
    args = parser.parse_args()
    if args.worker:
        return _attack(args.worker, args.minutes)
    from fuzz.table import TARGETS  # noqa: PLC0415 - a worker instruments it first

    begin = tuple((args.only or "").split(","))
    names = [name for name in TARGETS if name.startswith(begin)]
    if not names:
        parser.error(f"no target begins with {args.only}: {', '.join(TARGETS)}")
    if args.reproduce:
        TARGETS[names[0]].run(args.reproduce.read_bytes())
        return 0
    if importlib.util.find_spec("atheris") is None:
        _say("atheris is missing: .ci/venv server,dev,fuzz")
        return 2
    with ThreadPoolExecutor(args.jobs) as pool:
        found = list(pool.map(lambda name: _watched(name, args.minutes), names))
    _say(f"{len(names)} targets, {args.minutes:g} minutes each, {sum(found)} with findings")
    return 1 if any(found) else 0


def _watched(name: str, minutes: float) -> bool:
    """Run a target in a process of its own; tell whether it found something."""
    place = PLACE / name
    place.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    command = [sys.executable, "-m", "fuzz", "--worker", name, "--minutes", str(minutes)]
    # In memory where that can be had: many of them make a folder for each input.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (place / "log").open("wb") as log, TemporaryDirectory(dir=memory) as folder:
        environment = {**os.environ, "TMPDIR": folder}
        done = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False)
    said = (place / "log").read_text(errors="replace")
    tried = re.search(r"number_of_executed_units:\s*(\d+)", said)
    took_s = time.monotonic() - started
    mark = "✗" if done.returncode else "✓"
    _say(f"{mark} {name:24} {int(tried[1]) if tried else 0:>10,} inputs in {took_s:.0f} s")
    if done.returncode:
        _say(f"  see {place}/log")
    return bool(done.returncode)


def _attack(name: str, minutes: float) -> int:
    """Run a target here, for so long or until something is found."""
    import atheris  # noqa: PLC0415 - an optional extra

    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        from fuzz.table import TARGETS  # noqa: PLC0415 - see there
    from fuzz.target import CORPUS, INPUT_BYTES_MAX  # noqa: PLC0415 - see there

    target, place = TARGETS[name], PLACE / name
    grown = place / "corpus"
    grown.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (grown / f"seed-{number}").write_bytes(seed)
    words = place / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    kept = [CORPUS / name] if (CORPUS / name).is_dir() else []
    options = {
        "max_total_time": int(minutes * 60),
        "timeout": _SECONDS_MAX,
        "rss_limit_mb": _MEMORY_MIB_MAX,
        "max_len": INPUT_BYTES_MAX,
        "artifact_prefix": f"{place}/found-",
        "print_final_stats": 1,
    }

    def one_input(data: bytes) -> None:
        try:
            target.run(data)
        except Exception as fault:
            small = b"".join(_smaller(name, data, type(fault)))
            (place / f"small-{type(fault).__name__}").write_bytes(small)
            raise

    if target.words:
        options["dict"] = words
    flags = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], *flags, str(grown), *map(str, kept)], one_input)
    atheris.Fuzz()
    return 0


def _smaller(name: str, data: bytes, fault: type[Exception]) -> Iterator[bytes]:
    """The pieces of an input without which it is not the same fault any more."""
    from fuzz.table import TARGETS  # noqa: PLC0415 - see `_attack`

    def still(candidate: bytes) -> bool:
        try:
            TARGETS[name].run(candidate)
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            return type(error) is fault
        return False

    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            candidate = data[:at] + data[at + size :]
            if still(candidate):
                data = candidate
            else:
                at += size
        size //= 2
    yield data


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    sys.exit(main())
