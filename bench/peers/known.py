"""The peers, where each is installed, and why one can't be run."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ROOT / "build" / "peers"
_SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")


@dataclass(frozen=True)
class Known:
    """One peer.

    Attributes:
        name: as it stands in rows and in --only.
        module: its file in this folder.
        venv: its environment below build/peers; empty for this project's own.
        programs: what else has to be on PATH or in /usr/sbin.
    """

    name: str
    module: str
    venv: str = ""
    programs: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        """The interpreter that its host runs in."""
        return INSTALLED / self.venv / "bin" / "python" if self.venv else Path(sys.executable)

    def lacks(self) -> str:
        """Say what is missing here; empty where it can be run."""
        if not self.python.exists():
            return f"{self.venv} is not installed: bench/peers/install {self.venv}"
        missing = [one for one in self.programs if not shutil.which(one, path=search_path())]
        return f"not installed: {', '.join(missing)}" if missing else ""


def search_path() -> str:
    """Where this project's programs are, PATH, and where Debian keeps daemons."""
    ours = str(Path(sys.executable).parent)
    return os.pathsep.join([ours, os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS])


PEERS = (
    Known("lender", "ours", programs=("bwrap",)),
    Known("lender, executor", "ours_executor", programs=("bwrap",)),
    Known("ProcessPoolExecutor", "pool"),
    Known("gearman", "gearman", programs=("gearmand", "cc")),
    Known("Celery, Redis AOF", "celery_redis", "celery", ("redis-server",)),
    Known("taskiq-nats", "taskiq_nats", "taskiq"),
    Known("Dask distributed", "dask_tcp", "dask"),
    Known("Ray", "ray_tasks", "ray"),
    Known("Ray, actors", "ray_actors", "ray"),
    Known("HyperQueue", "hyperqueue", "hyperqueue"),
    Known("huey, Redis AOF", "huey_redis", "huey", ("redis-server",)),
    Known("dramatiq, Redis AOF", "dramatiq_redis", "dramatiq", ("redis-server",)),
    Known("Slurm", "slurm", programs=("slurmctld", "slurmd", "munged", "srun")),
)
