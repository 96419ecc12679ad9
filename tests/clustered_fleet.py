"""A fleet on a cluster of three servers, each from the folder that a deployment makes for it."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from enrolling_fleet import Enrolling, EnrollingFleet
from nats_cluster import free_ports

from broker.deployment import contents
from deploy.local.fleet import Fleet, Lender, Part, wait_until
from deploy.local.guard import Guard
from lender.link.embedded import find_server

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
WITHIN_S = 60.0


class Member:
    """One of the servers, on what its machine got of the deployment."""

    def __init__(self, host: str, made: Path, here: Path, port: int, guard: Guard) -> None:
        self.host = host
        self.url = f"nats://{host}:{port}"
        self.here = here
        self._made = made
        self._guard = guard
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def deliver(self) -> None:
        """Copy its folder, as it is made, to its machine."""
        shutil.copytree(self._made, self.here, dirs_exist_ok=True)
        config = self.here / "server.conf"
        # Tests open no port to others.
        config.write_text(config.read_text().replace("0.0.0.0", self.host))

    def start(self) -> None:
        with (self.here / "log").open("ab") as log:
            # Why somebody is refused is said with -D alone.
            command = [find_server(), "-D", "-c", "server.conf"]
            self._process = subprocess.Popen(command, cwd=self.here, stdout=log, stderr=log)
        self._guard.watch(self._process.pid)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def read_anew(self) -> None:
        os.kill(self.pid, signal.SIGHUP)

    def log(self) -> str:
        return (self.here / "log").read_text()

    def said_of_accounts(self) -> str:
        """The end of what it says of accounts, and of whom it let in or not."""
        told = [one for one in self.log().splitlines() if "ccount" in one or "JWT" in one]
        return "\n".join(one[:300] for one in told if " Adding s" not in one)[-8000:]


class ClusteredFleet(EnrollingFleet):
    """Three servers, a broker, a submitter's key, and machines that come later."""

    def __init__(self, folder: Path) -> None:
        assert sys.platform == "linux", "elsewhere 127.0.0.2 is nobody's address"
        self.port, self.route_port = free_ports(2)
        url = ",".join(f"nats://{host}:{self.port}" for host in HOSTS)
        super().__init__(folder, url)
        made = self.deployment.folder / contents.CLUSTER_FOLDER
        machines = folder / "machines"
        self.members = [
            Member(host, made / host, machines / host, self.port, self._guard) for host in HOSTS
        ]
        self.ca = folder / contents.AUTHORITY
        self._env["LENDERD_CA"] = str(self.ca)

    def start(self) -> None:
        """Make the deployment, start its servers from what it has made, then as any fleet."""
        ports = ("--port", str(self.port), "--route-port", str(self.route_port))
        said = self.broker_verb("init", "--cluster", *HOSTS, *ports)
        assert said.returncode == 0, said.stderr
        self.ca.write_text(self.deployment.read(contents.AUTHORITY))
        self.ca.chmod(0o644)
        for member in self.members:
            member.deliver()
            member.start()
        wait_until(lambda: any("metadata leader" in one.log() for one in self.members), "a cluster")
        Fleet.start(self)
        assert self.broker_verb("forbid", "demo").returncode == 0

    def broker_verb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a verb; those that speak with a server are told who vouches for it."""
        speaks = arguments[0] in ("requests", "approve", "token", "rotate", "revoke")
        ca = ("--ca", str(self.ca)) if speaks else ()
        return super().broker_verb(*arguments, *ca)

    def lend_by(self, member: Member, name: str) -> Lender:
        """Start a machine, and have it let in by way of one server."""
        lender = Lender(name, self.folder, member.url, self._env, self._guard)
        self._begin(lender)
        self._wait(lender, lender.answers)
        self._pair(Enrolling(member.url, self._said("--state", str(lender.state), name), {}, ""))
        return lender

    def submit_by(self, member: Member, name: str) -> None:
        """Have the submitter let in by way of one server."""
        key = ("--role", "submitter", "--key", str(self.key))
        self._pair(Enrolling(member.url, self._said(*key, name), {}, ""))

    def stop(self) -> None:
        """Stop all of it, the servers last."""
        try:
            super().stop()
        finally:
            for member in self.members:
                member.kill()

    def _said(self, *who_and_name: str) -> tuple[str, ...]:
        *who, name = who_and_name
        return (*who, "--name", name, "--ca", str(self.ca))

    def _pair(self, enrolling: Enrolling) -> None:
        with enrolling:
            self.approve(enrolling.document()["code"])
            assert enrolling.ended() == 0, enrolling.complaint()

    def _broker(self, port: int) -> Part:
        part = super()._broker(port)
        part.env["LENDER_BROKER_REPLICAS"] = str(len(HOSTS))
        return part
