"""A python job's tasks, one call of its function each, in an interpreter for a lease.

What the runtimes have in common whatever walls the interpreter is behind: how it is started and
what is shown to it is the runtime's own to say.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from lender.sandbox.files import scratch
from lender.sandbox.plan import SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes import command, python_inside
from lender.sandbox.runtimes.interpreter import Call, Interpreter
from lender.sandbox.runtimes.runner import Reporter


class PythonRunner:
    """Runs one plan's tasks.

    Args:
        plan: what to run.
        reporter: the way back to the daemon.
        start: starts an interpreter for a plan in a working folder that is empty; may raise what
            `command.run` takes.
        may_burst: the interpreter can see by itself what a task leaves in here.

    Raises:
        PrepareFailedError: no function, an input can't be read, or the program can't be loaded.
    """

    def __init__(
        self,
        plan: SandboxPlan,
        reporter: Reporter,
        start: Callable[[SandboxPlan], Interpreter],
        *,
        may_burst: bool = False,
    ) -> None:
        if plan.program is None:
            raise PrepareFailedError(
                "a python job names its function", invalid=True, field="program"
            )
        scratch.check_inputs({**plan.inputs, "program": plan.program})
        self._plan = plan
        self._reporter = reporter
        self._start_interpreter = start
        # What is to be taken out of the folder, or to be put into it, is a task's own. And of what
        # lies in a folder of its own the interpreter sees nothing.
        taken = plan.outputs or plan.checkpoint or plan.network is not None
        may_burst = may_burst and not taken and not any("/" in name for name in plan.inputs)
        self._burst_max = python_inside.REQUEST_TASKS_MAX if may_burst else 1
        self._call: Call | None = None
        self._interpreter: Interpreter
        self._load()
        reporter.when_idle = self._tidy

    def begin_job(self, job: str, task_count: int, *, separate: bool) -> None:
        """See `Runner`; never asked for: another job brings another program, see `go_on`."""
        raise NotImplementedError(job, task_count, separate)

    def go_on(self, plan: SandboxPlan) -> None:
        """See `Continuing`."""
        if not self._interpreter.alive:
            raise PrepareFailedError("the interpreter has ended")
        # The folder is the same, by the name that it has here.
        plan = self._plan = plan._replace(scratch=self._plan.scratch)
        outcome = self._run_loading(lambda _: self._interpreter.loading_another(plan))
        if outcome.state != "succeeded" or not self._interpreter.alive:
            raise PrepareFailedError(outcome.error or "the program ended the interpreter")

    def run(self, task: int, _words: Sequence[str] = ()) -> TaskOutcome:
        """Run one task to its end; a function has no words."""
        *_, outcome = self.run_some((task,))
        return outcome

    def run_some(self, tasks: Sequence[int]) -> Iterator[TaskOutcome]:
        """See `RunsSome`."""
        if not self._interpreter.alive:
            # The task before has left what could not be cleaned up.
            try:
                self._load()
            except PrepareFailedError as error:
                self._end(TaskOutcome(tasks[0], "failed", error=error.reason))
        try:
            call = self._interpreter.call(tasks[: self._burst_max])
        except (OSError, PrepareFailedError) as error:
            self._interpreter.end()
            self._end(TaskOutcome(tasks[0], "failed", error=f"not started: {error}"))
        yield from call.others()
        self._reporter.task = call.task
        plan, soft_stop = self._plan, self._reporter.soft_stop
        outcome = command.run(
            call.task, plan, lambda _task: call, soft_stop, plan.inputs, self._reporter
        )
        outcome = call.complete(outcome)
        if not self._interpreter.alive:
            self._end(outcome)
        if not call.is_vacant:
            yield outcome

    def _end(self, outcome: TaskOutcome) -> NoReturn:
        """Leave it to the daemon to have another one prepared, in its own time."""
        self._reporter.send(outcome, last=True)
        os._exit(0)

    def _tidy(self, _: object) -> None:
        """Clean up behind a task while its outcome is on the way."""
        if self._interpreter.alive and not self._interpreter.settle():
            self._interpreter.end()

    def _load(self) -> None:
        """Start the interpreter and have it load the program.

        Raises:
            PrepareFailedError: it can't; the program is at fault where the interpreter came up.
        """
        scratch.wipe(self._plan.scratch)
        outcome = self._run_loading(self._begin_loading)
        reason, loading = outcome.error or "the program ended its interpreter", self._call
        if loading is None:
            raise PrepareFailedError(reason)
        if outcome.state == "succeeded" and self._interpreter.alive:
            return
        if self._interpreter.alive:
            self._interpreter.end()
        if outcome.terminated or outcome.limit == "time" or not self._interpreter.greeted:
            raise PrepareFailedError(reason)
        if loading.answer is not None and loading.answer.kind == python_inside.MISSING:
            # Another machine may have it.
            raise PrepareFailedError(f"the program needs what is not here: {reason}")
        reason = f"the program can't be loaded: {reason}"
        raise PrepareFailedError(reason, invalid=True, field="program")

    def _run_loading(self, begin: Callable[[int], Call]) -> TaskOutcome:
        limits = self._plan.limits._replace(time_s=self._plan.limits.prepare_s)
        plan = self._plan._replace(limits=limits)
        ours = (*plan.inputs, python_inside.NEXT)
        return command.run(0, plan, begin, self._reporter.soft_stop, ours)

    def _begin_loading(self, _task: int) -> Call:
        self._interpreter = self._start_interpreter(self._plan)
        self._call = self._interpreter.loading()
        return self._call
