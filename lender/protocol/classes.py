"""Classes: disjoint work queues, made from what separates machines.

A class names pool, runtime, architecture and GPU, and whose work of which workload it is, since
that is what an owner's grant names: a lender that pulls only the classes of its grants never
takes what its owner has not allowed (docs/decisions/0003-classes.md).
"""

from typing import NamedTuple, Self

from lender.protocol.errors import ProtocolError
from lender.protocol.job import Gpu, JobSpec, Runtime

_SEPARATOR = "_"
_PARTS = 6


class WorkClass(NamedTuple):
    """The parts of a class; none may contain the separator `_`."""

    pool: str
    runtime: Runtime
    arch: str
    gpu: Gpu
    submitter: str
    workload: str

    @property
    def token(self) -> str:
        """The class as one subject token and consumer name."""
        return _SEPARATOR.join(self).replace("x86_64", "x8664")

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
        if len(parts) != _PARTS or parts[1] not in ("wasm", "process"):
            raise ProtocolError("class", f"not a class: {token[:120]!r}")
        pool, runtime, arch, gpu, submitter, workload = parts
        arch = "x86_64" if arch == "x8664" else arch
        return cls(
            pool,
            "wasm" if runtime == "wasm" else "process",
            arch,
            "nvidia" if gpu == "nvidia" else "none",
            submitter,
            workload,
        )
