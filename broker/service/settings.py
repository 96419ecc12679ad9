"""Settings of lender-broker: a TOML file, environment `LENDER_BROKER_*`, command line."""

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lender.protocol import streams
from lender.protocol.errors import ProtocolError
from lender.protocol.ids import PoolName
from lender.protocol.signature import check_public_key
from lender.service.logs import LogFormat
from lender.service.places import state_home
from lender.service.settings import ListenAddress, LogLevel, handed_over

DEFAULT_PORT = 4222

BYTES_MIN = 1 << 20


def default_state() -> Path:
    """Return the usual state folder of this user's broker.

    Raises:
        NoHomeError: there is none.
    """
    return Path(state_home(), "lender-broker")


class BrokerSettings(BaseSettings):
    """What the operator may set."""

    model_config = SettingsConfigDict(env_prefix="LENDER_BROKER_", extra="forbid")

    url: str = f"nats://127.0.0.1:{DEFAULT_PORT}"
    """Where the NATS server is; not looked at with `embedded`."""
    embedded: bool = False
    """Run a NATS server as part of this process."""
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65_535)
    """Of the embedded server on 127.0.0.1; 0 takes a free one."""
    store: Path | None = None
    """Folder of the embedded server. None: `nats` in the state folder."""
    state: Path = Field(default_factory=default_state)
    """Folder of `submitters.toml`, which `allow` and `forbid` write."""
    credentials: Path | None = Field(default_factory=lambda: handed_over("lender-broker.creds"))
    """File that the NATS server lets us in by, where it asks for one: see README.md. By default
    what the service manager hands over, if that is anything."""
    ca: Path | None = None
    """Certificates of who may vouch for the NATS server, for TLS. None: a deployment's, if any."""
    deployment: Path | None = None
    """Folder that `init` makes and `serve` uses. None: `deployment` in the state folder, if any."""
    submitters: dict[str, str] = {}
    """Who may submit, besides those that were allowed by command: name = public key."""
    pools: list[PoolName] | None = Field(default=None, min_length=1)
    """Whose jobs are taken; a job for another one is rejected. None: every pool's."""
    jobs_bytes: int | None = Field(default=None, ge=BYTES_MIN)
    """What JOBS may hold; a full one refuses submissions and cancellations. None: no bound."""
    results_bytes: int | None = Field(default=None, ge=BYTES_MIN)
    """What RESULTS may hold; while it is full, nothing is decided. None: no bound."""
    replicas: int = Field(default=1, ge=1, le=5)
    """Of every stream; more than 1 needs a NATS cluster."""
    metrics: ListenAddress | None = None
    """Where metrics are served, such as `127.0.0.1:9463`. None: nowhere. docs/observability.md"""
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"
    """`json` writes an object a line: docs/observability.md."""

    @property
    def deployment_folder(self) -> Path:
        """Where the deployment is, or would be."""
        return self.state / "deployment" if self.deployment is None else self.deployment

    @property
    def bytes_max(self) -> dict[str, int]:
        """How large streams may become, of those that have a bound."""
        bounds = {streams.JOBS: self.jobs_bytes, streams.RESULTS: self.results_bytes}
        return {name: bound for name, bound in bounds.items() if bound is not None}

    @field_validator("submitters")
    @classmethod
    def _are_keys(cls, submitters: dict[str, str]) -> dict[str, str]:
        for name, key in submitters.items():
            try:
                check_public_key(key)
            except ProtocolError as error:
                raise ValueError(f"{name}: {error.reason}") from error
        return submitters
