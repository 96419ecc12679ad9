"""joblib's `Parallel` on a fleet: `register()`, then `with parallel_config(backend="lender"):`.

joblib is not installed with lender: who uses this has it. Lenders need none, unless a function of
the job's imports it.
"""

import secrets
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from joblib import register_parallel_backend
from joblib.parallel import AutoBatchingMixin, ParallelBackendBase

from lender.client.executor import LenderExecutor
from lender.protocol.interpreter import INTERPRETER_VARIABLE

WORKERS = 64


def register() -> None:
    """Make the backend `lender` known to joblib."""
    register_parallel_backend("lender", LenderBackend)


class LenderBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc] # joblib has no types
    """What joblib asks of a backend; it gathers short calls by itself (`batch_size="auto"`).

    Parameters of `parallel_config` other than joblib's own are those of `LenderExecutor`:
    `client`, `trust_results` (which values that are no plain data need), `limits`, `requires`.
    """

    supports_retrieve_callback = True
    default_n_jobs = -1
    # A batch is on its way for some 0.1 s: where joblib gathers so much it is a small part of it.
    MIN_IDEAL_BATCH_DURATION = 2.0
    MAX_IDEAL_BATCH_DURATION = 20.0

    def __init__(self, **parameters: Any) -> None:  # noqa: ANN401 - joblib's
        super().__init__(**parameters)
        self._interpreter = secrets.token_hex(16)
        self._workers: LenderExecutor | None = None
        self._futures: set[Future[Any]] = set()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """So many calls are with the fleet: of how many machines, nobody knows beforehand.

        Args:
            n_jobs: so many; negative: 64.

        Raises:
            ValueError: it is zero.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        return WORKERS if n_jobs is None or n_jobs < 0 else n_jobs

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,  # noqa: ANN401 - joblib's
        prefer: str | None = None,
        require: str | None = None,
        **parameters: Any,  # noqa: ANN401 - joblib's
    ) -> int:
        """Connect, for one `Parallel`; returns `effective_n_jobs`."""
        super().configure(n_jobs, parallel, prefer, require)
        workers = self.effective_n_jobs(n_jobs)
        ours = {name: one for name, one in parameters.items() if name not in _OF_THIS_MACHINE}
        self._n_jobs, self._parameters = n_jobs, ours
        options = {**self.backend_kwargs, **ours}
        # One for all of its `Parallel` calls, as joblib's own processes live on.
        env = {INTERPRETER_VARIABLE: self._interpreter, **options.get("env", {})}
        self._workers = LenderExecutor(workers, **{**options, "env": env})
        return workers

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Future[Any]], object] | None = None
    ) -> Future[Any]:
        """Have a batch of calls run: joblib's `BatchedCalls`, which lenders don't have."""
        assert self._workers is not None
        future = self._workers.submit(_calls(func.items))  # type: ignore[attr-defined] # it has
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:  # noqa: ANN401 - what was called
        """What a batch returned."""
        return out.result()

    def terminate(self) -> None:
        """Take no more calls; what runs ends by itself."""
        if self._workers is not None:
            self._workers.shutdown(wait=False)
            self._workers = None
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: FBT001, FBT002 - joblib's
        """Cancel what waits and what runs."""
        for future in list(self._futures):
            future.cancel()
        self.terminate()
        if ensure_ready:
            self.configure(self._n_jobs, self.parallel, **self._parameters)


_OF_THIS_MACHINE = {"max_nbytes", "mmap_mode", "temp_folder", "verbose", "context"}
"""What joblib says of shared memory and of processes, which are not where the calls run."""


def _calls(items: list[tuple[Callable[..., Any], Any, Any]]) -> Callable[[], list[Any]]:
    def call() -> list[Any]:
        return [function(*arguments, **named) for function, arguments, named in items]

    return call
