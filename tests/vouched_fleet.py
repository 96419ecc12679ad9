"""A fleet in which everybody is let in by credentials of a deployment, under their own rights."""

import os
import pwd
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from enrolling_fleet import make_deployment

from broker.deployment.folder import Deployment
from broker.deployment.tokens import Key
from deploy.local.fleet import ORDINARY_USER, Fleet, command
from lender.link.credentials import credentials
from lender.protocol.classes import WorkClass
from lender.protocol.job import Arch
from lender.protocol.permissions import Role
from lender.state.folder import StateFolder


class VouchedFleet(Fleet):
    """A fleet for `command` whose broker's state folder holds a deployment."""

    def __init__(self, folder: Path, lenders: Sequence[str]) -> None:
        super().__init__(folder, lenders, workloads=("command",))
        self.deployment = Deployment(folder / "broker" / "deployment")
        self.keys: dict[str, Key] = {}

    @property
    def submitter_credentials(self) -> Path:
        """What lets the submitter in."""
        path = self.folder / "submitter.creds"
        if not path.exists():
            key = Key(self.submitter_seed)
            self._write(path, self.let_in("submitter", key, "demo"))
        return path

    def let_in(self, role: Role, key: Key, name: str, *classes: str) -> str:
        """Credentials for a key, from now on."""
        tags = tuple(f"class:{one}" for one in classes)
        token = self.deployment.vouch(role, key.public, name, tags, time.time())
        return credentials(token, key.seed)

    def broker_verb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a verb of `lender-broker` as the fleet's operator."""
        verb = (command("lender-broker"), arguments[0], "--state", str(self.folder / "broker"))
        return subprocess.run(
            [*verb, *arguments[1:]], capture_output=True, text=True, timeout=30, check=False
        )

    def start(self) -> None:
        """Make the deployment, then as any fleet."""
        make_deployment(self.folder / "broker")
        super().start()

    def _add(self, name: str) -> None:
        key = self.keys[name] = Key.make("user", os.urandom(32))
        state = self.folder / name
        state.mkdir(mode=0o711)
        self._write(StateFolder(state).identity, key.seed.decode())
        classes = [
            WorkClass("default", "process", arch, "none", self.submitter, "command").token
            for arch in get_args(Arch)
        ]
        path = self.folder / f"{name}.creds"
        self._write(path, self.let_in("lender", key, name, *classes))
        self._env["LENDERD_CREDENTIALS"] = str(path)
        super()._add(name)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.touch(mode=0o600)
        path.write_text(text)
        if os.geteuid() == 0:
            user = pwd.getpwnam(ORDINARY_USER)
            os.chown(path, user.pw_uid, user.pw_gid)
