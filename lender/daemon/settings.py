"""Settings of lenderd: `lenderd.toml`, environment `LENDERD_*`, command line."""

import socket
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lender.daemon.device_settings import PhonesSettings
from lender.daemon.home_settings import MqttSettings
from lender.daemon.policy_settings import PolicySettings
from lender.link.membership import Membership
from lender.protocol.bounds import LABELS_MAX
from lender.protocol.devices import devices_of
from lender.protocol.ids import Label, PoolName
from lender.protocol.job import Runtime
from lender.sensors.devices.host_tools import Announced
from lender.service.logs import LogFormat
from lender.service.settings import ListenAddress, LogLevel, handed_over

ImportName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""Of a package or a module at the top level."""


class DaemonSettings(BaseSettings):
    """What the machine's owner or administrator may set; consent is not among it."""

    model_config = SettingsConfigDict(env_prefix="LENDERD_", extra="forbid")

    url: str = "nats://127.0.0.1:4222"
    """Where the fleet's NATS server is."""
    credentials: Path | None = Field(default_factory=lambda: handed_over("lenderd.creds"))
    """File that the NATS server lets us in by, where it asks for one: see README.md. By default
    what the service manager hands over, if that is anything."""
    ca: Path | None = None
    """Certificates of who may vouch for that server, for TLS: `ca.pem` of a deployment."""
    state: Path | None = None
    """State folder: consent, receipts, identity. None: `default_state_path()`."""
    name: str = Field(default_factory=socket.gethostname, max_length=120)
    """What people call this machine."""
    pools: list[PoolName] = Field(default=["default"], min_length=1)
    labels: list[Label] = Field(default=[], max_length=LABELS_MAX)
    """What submitters may ask of a machine by name, such as `ssd` or `site:berlin`. Names of
    devices (`accel-...`) are not said here: they are found, and a grant allows them."""
    announce: list[Announced] = []
    """What of this machine may be told as a label, where it is there: `nix`, `docker`, `nix-gpu`.
    No sandbox is given any of it."""
    phones: PhonesSettings | None = None
    """Phones that hang on this machine, told as the label `phone-pool`: docs/devices.md."""
    runtimes: list[Runtime] = ["wasm", "process", "python", "oci"]
    """Runtimes that the self-test tries; offered where it shows that they hold."""
    python_packages: list[ImportName] = ["cloudpickle"]
    """Installed packages that python tasks may import, beside the standard library. `cloudpickle`
    is what functions are sent with."""
    workloads: Path | None = None
    """Folder of the workload catalogue. None: the one that came with the package."""
    added_workloads: list[Path] = []
    """Folders of more workloads; none takes the name of one that is there already."""
    slots: int | None = Field(default=None, ge=1, le=1024)
    """Leases at a time. None: one less than the machine has cores, at least one."""
    reserve_memory_bytes: int = Field(default=1 << 30, ge=0)
    """Memory that is never lent, where `policy` names none."""
    reserve_disk_bytes: int = Field(default=1 << 30, ge=0)
    """Space on the state folder's disk that is never lent."""
    cache_bytes: int | None = Field(default=None, ge=1 << 20)
    """What is kept of all jobs' inputs together. None: 8 GiB, or a quarter of what the disk would
    have free without them where that is less."""
    yield_cpu_others: float | None = Field(default=None, gt=0)
    """Cores kept busy by others above which lent work is frozen. None: as `policy` says."""
    exclusive_programs: list[str] = []
    """Names of programs beside which nothing is lent."""
    watts_per_core: float = Field(default=0.0, ge=0, le=1000)
    """What a busy core takes, where the machine can't tell; 0: no estimate of energy."""
    budget: list[str] = []
    """What all lent work together may use up: `10cpuh/day`, `5GB/week`, `0.5kWh/day`."""
    policy: PolicySettings = PolicySettings()
    """When lent work steps back, and how far."""
    frozen_handback_s: float = Field(default=10.0, gt=0)
    """Frozen work is handed back after this, and its memory freed."""
    processes_max: int = Field(default=256, ge=1, le=4096)
    """A job whose tasks ask for more processes is refused: hundreds that fork hold up others."""
    drain_s: float = Field(default=10.0, ge=0)
    """On SIGTERM running work may go on for so long."""
    user: str | None = None
    """Started as root: the ordinary user to become. Sandboxes never run as root."""
    user_is_dedicated: bool = False
    """Nothing but this lenderd runs as `user`, and nobody can log in as it: whatever of that user
    has left its sandbox is stopped and killed with it. On macOS tasks may start processes then."""
    metrics: ListenAddress | None = None
    """Where metrics are served, such as `127.0.0.1:9464`: docs/observability.md. None: nowhere."""
    mqtt: MqttSettings | None = None
    """The house's MQTT server, such as Home Assistant's: docs/home-automation.md. None: none."""
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"
    """`json` writes an object a line: docs/observability.md."""

    @field_validator("labels")
    @classmethod
    def _no_device(cls, labels: list[str]) -> list[str]:
        if devices := devices_of(labels):
            raise ValueError(
                f"{devices[0]} can't be said: it is found where it is, and a grant allows it "
                f"(lender grant ... --device {devices[0]})"
            )
        return labels

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        try:
            _hosts(url)
        except ValueError as error:
            raise ValueError(f"{error}: write it like nats://host:4222") from error
        return url

    def joined(self, enrolled: Membership | None) -> Self:
        """Return them with what enrolment has left, where they say nothing themselves.

        It counts for its own fleet: with the address of another one it is not looked at.
        """
        if enrolled is None or ("url" in self.model_fields_set and self.url != enrolled.url):
            return self
        found = {
            "url": enrolled.url,
            "credentials": self.credentials or enrolled.credentials,
            "ca": self.ca or enrolled.ca,
        }
        return self.model_copy(update=found)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names or addresses of the fleet's servers: not for any sandbox's network."""
        return _hosts(self.url)


def _hosts(url: str) -> tuple[str, ...]:
    """The hosts of addresses with commas between them.

    Raises:
        ValueError: one is none.
    """
    urls = (one if "//" in one else f"//{one}" for one in url.split(","))
    return tuple(host.rstrip(".") for one in urls if (host := urlsplit(one.strip()).hostname))
