"""Slurm on one node of two processors: steps of one allocation, the quickest way to run a task."""

import getpass
import os
import secrets
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.peers import tasks
from bench.peers.port import LOOPBACK, WORKERS, Peer, free_port

AT_A_TIME = 4
SETTINGS = """
ClusterName=bench
SlurmctldHost={host}({loopback})
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldParameters=enable_configless
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName={host} NodeAddr={loopback} CPUs={workers} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Slurm(Peer):
    """A controller, one node's daemon, munge."""

    CONFIGURATION = (
        "slurmctld, one slurmd of 2 CPUs, munge; a task is a step of one allocation "
        f"(`srun --exact -n 1 /bin/true`, {AT_A_TIME} sruns at a time); a no-op task is /bin/true"
    )
    DURABLE = "no: jobs are, after seconds, but not their steps"
    PROGRAMS = (("slurmctld", "-V"),)
    NO_RECOVERY = "a node that is gone is missed after SlurmdTimeout, 300 s by default"

    def start(self) -> None:
        """Start munge, controller and node, and allocate all of it."""
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        self._munge()
        host, settings = socket.gethostname().partition(".")[0], self.folder / "slurm.conf"
        settings.write_text(
            SETTINGS.format(
                user=getpass.getuser(),
                host=host,
                loopback=LOOPBACK,
                controller=free_port(),
                daemon=free_port(),
                folder=self.folder,
                workers=WORKERS,
            )
        )
        os.environ["SLURM_CONF"] = str(settings)
        self.spawn("slurmctld", ["slurmctld", "-D", "-f", str(settings)])
        self.spawn("worker", ["slurmd", "-D", "-f", str(settings), "-N", host])
        self.until(lambda: "idle" in _said("sinfo", "-h", "-o", "%T"), "an idle node")
        _said("salloc", "-Q", "-n", str(WORKERS), "-J", "bench", "--no-shell")
        self.until(lambda: "R" in _said("squeue", "-h", "-o", "%t"), "an allocation")
        self._job = _said("squeue", "-h", "-o", "%i").strip()

    def noop(self, count: int) -> None:
        """There is no task that is no process."""
        self.true(count)

    def true(self, count: int) -> None:
        """A step each."""
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            for _ in pool.map(self._step, range(count)):
                pass

    def busy(self, path: Path) -> None:
        """One step."""
        argv = [*self._srun(), sys.executable, tasks.__file__, str(path)]
        self.spawn("server-srun", argv)

    def stop_busy(self) -> None:
        """Cancel it, with its allocation."""
        _said("scancel", self._job)

    def _srun(self) -> list[str]:
        return ["srun", f"--jobid={self._job}", "--exact", "-n", "1", "-Q"]

    def _step(self, _: int) -> None:
        subprocess.run([*self._srun(), tasks.TRUE], check=True, stdin=subprocess.DEVNULL)

    def _munge(self) -> None:
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        options = ["--foreground", "--force", f"--key-file={key}"]
        options += [
            f"--{name}={self.folder}/munge.{name.partition('-')[0]}"
            for name in ("socket", "pid-file", "seed-file", "log-file")
        ]
        self.spawn("munged", ["munged", *options])
        self.until((self.folder / "munge.socket").exists, "munge")


def _said(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


PEER = Slurm
