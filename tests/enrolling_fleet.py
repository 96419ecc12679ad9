"""A fleet with a deployment, into which nobody was let in yet but by enrolment."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from broker_command import broker_command

from broker.deployment.folder import Deployment
from broker.service.submitters import SubmittersFile
from deploy.local.fleet import Fleet, Lender, command

WITHIN_S = 60.0
_ASKING = ("requests", "approve", "token", "bound", "rotate", "revoke")


def make_deployment(state: Path) -> None:
    """Run `lender-broker init`, without a process for it."""
    said = broker_command("init", "--state", str(state))
    assert said.returncode == 0, said.stderr


class EnrollingFleet(Fleet):
    """A broker with its server, a submitter's key, and machines that come later."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        super().__init__(folder, (), workloads=("command",), url=url)
        self.deployment = Deployment(folder / "broker" / "deployment")

    def start(self) -> None:
        """Make the deployment, then as any fleet."""
        make_deployment(self.folder / "broker")
        super().start()
        SubmittersFile(self.folder / "broker").forbid("demo")

    def broker_verb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a verb of `lender-broker` as the fleet's operator."""
        argv = [command("lender-broker"), arguments[0], "--state", str(self.folder / "broker")]
        url = ("--url", self.url) if arguments[0] in _ASKING else ()
        return subprocess.run(
            [*argv, *url, *arguments[1:]],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def requests(self) -> list[dict[str, Any]]:
        """Who waits."""
        said = self.broker_verb("requests", "--json")
        assert said.returncode == 0, said.stderr
        found: list[dict[str, Any]] = json.loads(said.stdout)["requests"]
        return found

    def token(self, *arguments: str) -> str:
        """A join token."""
        said = self.broker_verb("token", *arguments)
        assert said.returncode == 0, said.stderr
        return said.stdout.strip()

    def approve(self, code: str, *arguments: str) -> None:
        """Let in who shows the code."""
        said = self.broker_verb("approve", code, "--yes", *arguments)
        assert said.returncode == 0, said.stderr

    def add(self, name: str) -> Lender:
        """Start a machine that knows nobody, and that nobody knows."""
        self._add(name)
        lender = self.lenders[name]
        self._wait(lender, lender.answers)
        return lender

    def enroll(
        self, *arguments: str, env: Mapping[str, str] | None = None, stdin: str = ""
    ) -> "Enrolling":
        """Run `lender enroll` for one of our machines or submitters."""
        return Enrolling(self.url, arguments, env or {}, stdin)

    def enroll_lender(
        self, name: str, *arguments: str, env: Mapping[str, str] | None = None, stdin: str = ""
    ) -> "Enrolling":
        """Run it for a machine."""
        state = str(self.lenders[name].state)
        return self.enroll("--state", state, "--name", name, *arguments, env=env, stdin=stdin)


class Enrolling:
    """`lender enroll URL --json`, which ends with the test."""

    def __init__(
        self, url: str, arguments: tuple[str, ...], env: Mapping[str, str], stdin: str
    ) -> None:
        self.process = subprocess.Popen(
            [command("lender"), "enroll", url, "--json", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **env},
        )
        assert self.process.stdin is not None
        self.process.stdin.write(stdin.encode())
        self.process.stdin.close()
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def document(self) -> dict[str, Any]:
        """The next document that it prints."""
        assert self.process.stdout is not None
        ends_at = time.monotonic() + WITHIN_S
        while b"\n" not in self._read:
            left_s = ends_at - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, left_s))
            assert ready, "it prints nothing"
            found = os.read(self.process.stdout.fileno(), 65536)
            assert found, f"it ended: {self.complaint()}"
            self._read += found
        line, _, self._read = self._read.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        assert said["schema"] == "lender.enroll/1"
        return said

    def complaint(self) -> str:
        """What it says on standard error, to its end."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def ended(self) -> int:
        """Its exit code."""
        return self.process.wait(WITHIN_S)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
