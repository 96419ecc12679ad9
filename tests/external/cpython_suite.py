"""CPython's own tests of `concurrent.futures`, as Debian packages them (libpython3.11-testsuite).

The file is not ours and is not copied. It is loaded under its own name, also in the interpreters
that it starts, which look for our executor where the others are.
"""

import concurrent.futures
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from lender.client.executor import LenderExecutor

NAME = "test.test_concurrent_futures"
FILE = Path(f"/usr/lib/python3.{sys.version_info.minor}/test/test_concurrent_futures.py")
_HERE = Path(__file__).parent


def load() -> ModuleType:
    """Load the suite; its functions travel by value, since lenders don't have it."""
    spec = importlib.util.spec_from_file_location(NAME, FILE)
    assert spec is not None
    assert spec.loader is not None
    suite = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = suite
    spec.loader.exec_module(suite)
    cloudpickle.register_pickle_by_value(suite)
    assert_python_ok = suite.assert_python_ok

    def prepared(option: str, program: str) -> Any:  # noqa: ANN401 - the suite's own
        program = f"import cpython_suite\ncpython_suite.load()\n{program}"
        path = f"{_HERE}:{_HERE.parent.parent}"
        return assert_python_ok(option, program, PYTHONPATH=path)

    setattr(suite, "assert_python_ok", prepared)  # noqa: B010 - it is the suite's
    setattr(concurrent.futures, LenderExecutor.__name__, LenderExecutor)
    return suite
