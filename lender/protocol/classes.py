"""Classes: disjoint work queues, made from what separates machines.

A class names pool, runtime, architecture and GPU, and whose work of which workload it is, since
that is what an owner's grant names: a lender that pulls only the classes of its grants never
takes what its owner has not allowed (docs/decisions/0003-classes.md).
"""

from typing import NamedTuple, Self

from pydantic import TypeAdapter, ValidationError

from lender.protocol.errors import ProtocolError
from lender.protocol.ids import PoolName, PublicKey, WorkloadName
from lender.protocol.job import Arch, Gpu, JobSpec, Runtime

_SEPARATOR = "_"
_PARTS = TypeAdapter(tuple[PoolName, Runtime, Arch, Gpu, PublicKey, WorkloadName])


class WorkClass(NamedTuple):
    """The parts of a class; none may contain the separator `_`."""

    pool: str
    runtime: Runtime
    arch: Arch
    gpu: Gpu
    submitter: str
    workload: str

    @property
    def token(self) -> str:
        """The class as one subject token and consumer name."""
        return _SEPARATOR.join(self).replace("_x86_64_", "_x8664_")

    @classmethod
    def of(cls, spec: JobSpec) -> Self:
        """Return the class that a job's tasks are queued in."""
        requires = spec.requires
        return cls(
            requires.pool,
            spec.runtime,
            requires.arch,
            requires.gpu,
            spec.submitter,
            spec.workload,
        )

    @classmethod
    def parse(cls, token: str) -> Self:
        """Return the class that `token` names.

        Raises:
            ProtocolError: it names none.
        """
        parts = token.split(_SEPARATOR)
        parts[2:3] = ["x86_64" if part == "x8664" else part for part in parts[2:3]]
        try:
            return cls(*_PARTS.validate_python(tuple(parts)))
        except ValidationError as error:
            raise ProtocolError("class", f"not a class: {token[:120]!r}") from error
