"""Arguments and environment of wasm tasks, as C takes them, made once for all tasks of a plan."""

import ctypes
from collections.abc import Iterable, Sequence

from lender.sandbox.plan import JOB_NAME, TASK_NAME, TASK_WORD, SandboxPlan


class Words:
    """Arguments and environment of a plan's tasks; what differs is put in for each of them.

    Raises:
        UnicodeEncodeError: they are not UTF-8.
    """

    def __init__(self, plan: SandboxPlan) -> None:
        env = plan.env_of(0)
        self._plan = plan
        self._argv_for = {0: Strings(["program", *plan.argv_of(0)])}
        self._names, self._values = Strings(env), Strings(env.values())
        # By one of the two a task is told which it is; the other is the same for all.
        self._name = plan.job_of if plan.separate else plan.index_of
        self._name_place = [*env].index(JOB_NAME if plan.separate else TASK_NAME)
        self._is_told_by_argv = not plan.separate and any(TASK_WORD in one for one in plan.argv)

    def of(self, task: int, words: Sequence[str]) -> "tuple[Strings, Strings, Strings]":
        """Arguments, names and values of one task, until the next one is asked for."""
        self._values.put(self._name_place, self._name(task))
        return self._argv_of(task, words), self._names, self._values

    def _argv_of(self, task: int, words: Sequence[str]) -> "Strings":
        """Those of as many words as this task has, with what differs in place."""
        argv = self._argv_for.get(len(words))
        if argv is None:
            line = ["program", *self._plan.argv_of(task, words)]
            argv = self._argv_for[len(words)] = Strings(line)
        elif words or self._is_told_by_argv:
            line = self._plan.argv_of(task, words)
            same = 0 if self._is_told_by_argv else len(self._plan.argv)
            for place in range(same, len(line)):
                argv.put(place + 1, line[place])
        return argv


class Strings:
    """Strings as C takes them.

    Attributes:
        count: how many.
        place: where they are.
    """

    def __init__(self, words: Iterable[str]) -> None:
        encoded = [word.encode() for word in words]
        self.count = len(encoded)
        self._array = (ctypes.c_char_p * self.count)(*encoded)
        self.place = ctypes.addressof(self._array)

    def put(self, place: int, word: str) -> None:
        """Put another in one's place."""
        self._array[place] = word.encode()
