"""Which module runs which runtime on this system."""

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from lender.sandbox.plan import Runtime

ON_LINUX: Final[Mapping[Runtime, str]] = MappingProxyType(
    {
        "wasm": "lender.sandbox.runtimes.wasm",
        "process": "lender.sandbox.runtimes.process",
        "python": "lender.sandbox.runtimes.python",
        "oci": "lender.sandbox.runtimes.oci",
    }
)
ON_MAC: Final[Mapping[Runtime, str]] = MappingProxyType(
    {
        "wasm": "lender.sandbox.runtimes.wasm",
        "process": "lender.sandbox.runtimes.seatbelt_runner",
        "python": "lender.sandbox.runtimes.seatbelt_python",
    }
)
MODULES: Final = ON_MAC if sys.platform == "darwin" else ON_LINUX
"""Each has `preload()` and `start(plan, reporter)`; a runtime that is missing is not to be had.

One that has `rehearse()` is asked for it in a process that nobody waits for yet."""
