"""Starts a broker with an embedded NATS server and lenders, each with its own state and consent.

Everything runs as real processes by the commands that people use, and is gone when the fleet is
closed or its maker killed; what `lender keygen` and `lender-broker allow` write is written without
them, which would be a third of a small fleet's start. Started as root, the lenders become an
ordinary user: sandboxes never run as root.
"""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from broker.service.submitters import SubmittersFile
from deploy.local.guard import Guard
from lender.client import catalogue
from lender.client.keys import ENTROPY_BYTES, create_key
from lender.daemon.control_client import UnreachableError, ask
from lender.state.folder import StateFolder

READY_S = 30.0
ANSWER_S = 10.0
STOP_S = 15.0
ASK_AGAIN_S = 0.1
ORDINARY_USER = "nobody"
DEDICATED = '{"defaults": "dedicated"}'
"""The policy of a machine that nobody works at."""

GRANTED_WORKLOADS = ("render", "checksum", "wasm", "command")


class FleetError(Exception):
    """A part of the fleet did not start; the message ends with what it said."""


def command(name: str) -> str:
    """Return the path of one of our commands, from the environment that runs us."""
    return str(Path(sys.executable).parent / name)


def wait_until(condition: Callable[[], bool], what: str, within_s: float = READY_S) -> None:
    """Wait for `condition`, with a bound.

    Raises:
        FleetError: it did not come true in time.
    """
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise FleetError(f"{what} did not happen within {within_s:.0f} s")
        time.sleep(0.02)


class Part:
    """One process of the fleet, with its log."""

    def __init__(
        self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path, guard: Guard
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.env = dict(env)
        self.log = log
        self._guard = guard
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process (again); its log is continued."""
        out: IO[bytes]
        with self.log.open("ab") as out:
            # A session of its own: Ctrl-C goes to us, who stop the parts in order.
            self.process = subprocess.Popen(
                self.argv,
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._guard.watch(self.process.pid)

    @property
    def pid(self) -> int:
        """Process id of the running part."""
        assert self.process is not None
        return self.process.pid

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """End it with SIGKILL, as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """End it with SIGTERM, and with SIGKILL should it not heed."""
        if self.process is None:
            return
        self.ask_to_end()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def ask_to_end(self) -> None:
        """Send SIGTERM, also to one that stands still."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()

    def said(self) -> str:
        """Return the end of the log."""
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""


class Lender(Part):
    """A lenderd with its state folder."""

    def __init__(
        self, name: str, folder: Path, url: str, env: Mapping[str, str], guard: Guard
    ) -> None:
        self.state = folder / name
        argv = [command("lenderd"), "--state", str(self.state), "--url", url, "--name", name]
        super().__init__(name, argv, env, folder / f"{name}.log", guard)

    def owner(self, *verb: str, within_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run a `lender` verb as this machine's owner."""
        return subprocess.run(
            [command("lender"), verb[0], "--state", str(self.state), *verb[1:]],
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def status(self) -> dict[str, Any]:
        """Return what lenderd answers `lender status` with; empty where it does not answer.

        Without the command, since many wait for it and a process for each look holds others up.
        """
        try:
            return ask(StateFolder(self.state).control_socket, {"verb": "status"}, ANSWER_S)
        except UnreachableError:
            return {}

    def answers(self) -> bool:
        """Whether it serves its owner."""
        return bool(self.status())

    def lending(self) -> bool:
        """Whether it is connected and would take work."""
        status = self.status()
        return status.get("connected") is True and status.get("phase") == "lending"

    def busy(self) -> bool:
        """Whether a task runs here right now."""
        return any(one["state"] == "running" for one in self.status().get("running", ()))


class Fleet:
    """A broker and lenders; `with Fleet(...) as fleet`."""

    def __init__(
        self,
        folder: Path,
        lenders: Sequence[str] = ("desk",),
        *,
        workloads: Sequence[str] = GRANTED_WORKLOADS,
        env: Mapping[str, str] | None = None,
        grant: bool = True,
        url: str | None = None,
    ) -> None:
        """Prepare a fleet below `folder`.

        Args:
            folder: a folder of its own; with root, one that an ordinary user may enter.
            lenders: names of the machines.
            workloads: what each owner grants to the one submitter; only its runtimes are offered.
            env: settings of the lenders (`LENDERD_...`).
            grant: False leaves every machine without consent.
            url: a NATS server that runs already, instead of one embedded in the broker.
        """
        self.folder = folder
        self.key = folder / "submitter.nk"
        self._names = tuple(lenders)
        self._workloads = tuple(workloads)
        self._grant = grant
        # Lenders on one machine would otherwise step back before each other's work.
        self._env = {
            "LENDERD_POLICY": DEDICATED,
            "LENDERD_SLOTS": "1",
            "LENDERD_RUNTIMES": _runtimes_of(workloads),
            **(env or {}),
        }
        if os.geteuid() == 0:
            self._env["LENDERD_USER"] = ORDINARY_USER
        self._ready = folder / "broker.json"
        self._url = url
        self._guard = Guard()
        self.broker = self._broker(port=0)
        self.lenders: dict[str, Lender] = {}
        self.submitter = ""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the embedded NATS server listens."""
        return str(json.loads(self._ready.read_text())["url"])

    @property
    def submitter_seed(self) -> bytes:
        """The submitter's private key, an nkey seed."""
        return self.key.read_bytes().strip()

    def submit(self, *arguments: str, within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a submitter's verb (`submit`, `map`, `jobs`, ...) as the fleet's submitter."""
        verb = [command("lender"), arguments[0], "--url", self.url, "--key", str(self.key)]
        return subprocess.run(
            [*verb, *arguments[1:]],
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
        )

    def start(self) -> None:
        """Start everything and wait until every machine with consent lends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.submitter = self._new_key()
        self._allow("demo", self.submitter)
        self.start_broker()
        port = int(self.url.rsplit(":", 1)[1])
        self.broker = self._restartable(port)
        for name in self._names:
            self._add(name)
        for lender in self.lenders.values():
            self._wait(lender, lender.answers)
            for workload in self._workloads if self._grant else ():
                self.grant(lender, workload)
        if self._grant:
            for lender in self.lenders.values():
                self.wait_lending(lender)

    def start_broker(self) -> None:
        """Start the broker (again) and wait until it has replayed its streams."""
        self._ready.unlink(missing_ok=True)
        self.broker.start()
        self._wait(self.broker, self._ready.exists)

    def grant(self, lender: Lender, workload: str) -> None:
        """Say the owner's yes to one workload of the submitter."""
        verb = ("grant", f"demo={self.submitter}", "--workload", workload, "--cpu", "2")
        said = lender.owner(*verb, "--mem", "2G", "--when", "always", "--expires", "1d", "--yes")
        if said.returncode:
            raise FleetError(f"{lender.name}: {said.stderr}")

    def wait_lending(self, lender: Lender) -> None:
        """Wait until a machine is connected and lends."""
        self._wait(lender, lender.lending)

    def stop(self) -> None:
        """Stop every part, lenders first so that they hand their work back."""
        try:
            _hurry(self.lenders.values())
            self.broker.stop()
        finally:
            self._guard.close()

    def remove(self) -> None:
        """Delete the fleet's folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _add(self, name: str) -> None:
        self._begin(Lender(name, self.folder, self.url, self._env, self._guard))

    def _begin(self, lender: Lender) -> None:
        self.lenders[lender.name] = lender
        lender.state.mkdir(mode=0o711, exist_ok=True)
        if os.geteuid() == 0:
            user = pwd.getpwnam(ORDINARY_USER)
            os.chown(lender.state, user.pw_uid, user.pw_gid)
        lender.start()

    def _broker(self, port: int) -> Part:
        argv = [command("lender-broker"), "serve", "--state", str(self.folder / "broker")]
        argv += ["--ready-file", str(self._ready)]
        if self._url is None:
            argv += ["--embedded", "--port", str(port)]
        else:
            argv += ["--url", self._url]
        return Part("broker", argv, {}, self.folder / "broker.log", self._guard)

    def _restartable(self, port: int) -> Part:
        part = self._broker(port)
        part.process = self.broker.process
        return part

    def _new_key(self) -> str:
        return create_key(self.key, os.urandom(ENTROPY_BYTES)).public_key

    def _allow(self, name: str, public_key: str) -> None:
        SubmittersFile(self.folder / "broker").allow(name, public_key)

    def _wait(self, part: Part, condition: Callable[[], bool]) -> None:
        def ready_or_dead() -> bool:
            return condition() or not part.alive()

        try:
            wait_until(ready_or_dead, f"the start of {part.name}")
        except FleetError as error:
            raise FleetError(f"{error}\n{part.said()}") from error
        if not part.alive():
            raise FleetError(f"{part.name} ended:\n{part.said()}")


def _runtimes_of(workloads: Collection[str]) -> str:
    """The setting `runtimes` of a machine that runs these: it tries no others at its start."""
    known = catalogue.load()
    runtimes = {known[one].runtime if one in known else "wasm" for one in workloads}
    return json.dumps(sorted(runtimes))


def _hurry(lenders: Collection[Lender]) -> None:
    """Have all of them end: who is asked again does not wait for its work to end first."""
    deadline = time.monotonic() + STOP_S
    while left := [lender for lender in lenders if lender.alive()]:
        for lender in left:
            if time.monotonic() > deadline:
                lender.kill()
            else:
                lender.ask_to_end()
        time.sleep(ASK_AGAIN_S)
