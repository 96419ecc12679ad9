"""`concurrent.futures` on a fleet: docs/decisions/0030-executor.md."""

from lender.client.executor.executor import LenderExecutor
from lender.client.executor.outcomes import RemoteError, RemoteTraceback

__all__ = ["LenderExecutor", "RemoteError", "RemoteTraceback"]
