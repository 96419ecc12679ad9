"""CPU time of a sandbox for one of several leases that it works for in turn."""

from lender.sandbox.processes import cgroup
from lender.sandbox.processes.stopping import Target
from lender.sensors import processes


class CpuCounter:
    """Counts from now on: what earlier leases used in the same sandbox is not this one's.

    Attributes:
        before_s: what that was.
    """

    def __init__(self, target: Target) -> None:
        self.before_s = self._last_s = total_s(target)
        self._sum_s = 0.0

    def read(self, target: Target) -> float:
        """Return the seconds since this was made; those of a process that died unseen are lost."""
        now_s = total_s(target)
        # A sandbox whose process had to be ended begins again at nothing.
        self._sum_s += now_s - self._last_s if now_s >= self._last_s else now_s
        self._last_s = now_s
        return self._sum_s


def total_s(target: Target) -> float:
    """Return the CPU time of all that ran in a sandbox: by its cgroup, else by its trees."""
    if target.cgroup is not None:
        return cgroup.cpu_s(target.cgroup)
    found = (one for root in target.roots for one in processes.tree(root.pid))
    return sum(one.own_s + one.waited_s for one in found)
