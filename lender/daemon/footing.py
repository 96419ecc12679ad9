"""What lenderd stands on: an ordinary user, the launcher, its cgroups; and nobody beside it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from lender.daemon.privilege import become, check_dedicated, drop_to
from lender.daemon.settings import DaemonSettings
from lender.sandbox.files import scratch
from lender.sandbox.launcher import Launcher
from lender.sandbox.processes import account, subtree, tree
from lender.sandbox.processes.account import Account
from lender.sandbox.processes.subtree import Subtree
from lender.state.folder import StateFolder, read_pid, write_pid


class Footing(NamedTuple):
    """What there is while it stands; `cgroups` is None where there are none for us."""

    launcher: Launcher
    cgroups: Subtree | None


@asynccontextmanager
async def footing(settings: DaemonSettings, state: StateFolder) -> AsyncIterator[Footing]:
    """Become whom the settings name, and be the state folder's only lenderd, until it is left.

    Raises:
        PrivilegeError, AlreadyRunning: what to mend.
    """
    ids = drop_to(settings.user)
    enclosed = settings.user_is_dedicated
    if enclosed:
        check_dedicated(settings.user)
        if ids is not None and read_pid(state) is None:
            account.end_everything_of(*ids)  # what an earlier lenderd has left
    launcher = await Launcher.start(drop_to=ids, spare=True, enclosed=enclosed)
    cgroups = None
    try:
        # As root still: an ordinary user can be given cgroups, not take them.
        cgroups = subtree.claim(state.path, launcher.pid, ids)
        if ids is not None:
            become(ids, state.path)
        state.create()
        ours = _account(launcher) if enclosed else None
        with write_pid(state, ours):
            tree.enclose(ours)
            try:
                yield Footing(launcher, cgroups)
            finally:
                await launcher.close()
                scratch.remove_ahead(state.scratch)
    finally:
        await launcher.close()
        if cgroups is not None:
            cgroups.close()


def _account(launcher: Launcher) -> Account:
    """Of us and the launcher: nothing else is to run as this user."""
    return Account(os.getuid(), (tree.identify(os.getpid()), tree.identify(launcher.pid)))
