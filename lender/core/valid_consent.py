"""The owner's consent as it holds now: which grants, until when, for which classes."""

import math
from dataclasses import replace

from lender.core.admission import Plan, ask_of
from lender.core.config import Config
from lender.core.consent import Consent, Grant
from lender.core.events import Capabilities
from lender.core.offering import class_tokens, offered_nets
from lender.protocol.lease import OfferedNet


class ValidConsent:
    """The grants that hold, renewed whenever consent changes or `until` has come.

    A grant that holds may be closed for a while: the owner is there, or a budget is used up.

    Attributes:
        consent: as last read from disk; nothing before.
        grants: those that hold, by id.
        until: when the next of them ends, seconds since the epoch; infinity for never.
        digest: changes when `grants` do.
        closed: ids of grants that hold and allow nothing right now; why: see `Restraint`.
        gpu_work: work on a GPU may run right now.
        metered: the network is paid by volume right now.
        granted: classes that the grants name and this machine can run, also closed ones.
        classes: what the others allow and this machine can run.
        nets: where on the network that work may get to.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._capabilities: Capabilities | None = None
        self.consent = Consent()
        self.grants: dict[str, Grant] = {}
        self.until = -math.inf
        self.digest = ""
        self.closed: frozenset[str] = frozenset()
        self.gpu_work = True
        self.metered = False
        self.granted: tuple[str, ...] = ()
        self.classes: tuple[str, ...] = ()
        self.nets: tuple[OfferedNet, ...] = ()

    def loaded(self, consent: Consent) -> None:
        """Take up what was read from disk; `renew` is due."""
        self.consent = consent
        self.until = -math.inf

    def can_run(self, capabilities: Capabilities) -> None:
        """Take up what the machine can run; `renew` is due."""
        self._capabilities = capabilities
        self.until = -math.inf

    def renew(self, now: float) -> None:
        """Take up what holds at `now`."""
        self.grants = {grant.id: grant for grant in self.consent.valid(now)}
        expiry = self.consent.next_expiry(now)
        self.until = math.inf if expiry is None else expiry
        self.digest = self.consent.digest(now)
        if self._capabilities is not None:
            self.granted = class_tokens(self._config, self._capabilities, self.grants.values())
        self._name_classes()

    def close(self, closed: frozenset[str], *, gpu_work: bool, metered: bool) -> None:
        """Take up which grants allow nothing right now, and what the others don't."""
        if (closed, gpu_work, metered) != (self.closed, self.gpu_work, self.metered):
            self.closed, self.gpu_work, self.metered = closed, gpu_work, metered
            self._name_classes()

    @property
    def open(self) -> Consent:
        """What the grants that hold allow right now."""
        return Consent(
            tuple(
                replace(one, net=()) if self.metered and not one.net_metered else one
                for one in self.grants.values()
                if one.id not in self.closed
            )
        )

    def lent(self, capabilities: Capabilities) -> Capabilities:
        """Return what of `capabilities` is lent right now."""
        return capabilities if self.gpu_work else replace(capabilities, gpu="none")

    @property
    def submitters(self) -> frozenset[str]:
        """Those to whom a grant that holds was given."""
        return frozenset(grant.submitter for grant in self.grants.values())

    @property
    def lacking(self) -> str | None:
        """Why nothing could ever run here, in words; None where something could."""
        if not self.grants:
            return "no valid grant on this machine"
        if self._capabilities is not None and not self.classes and not self.closed:
            return "no grant names a workload that works here"
        return None

    def withdrawn(self, now: float, plan: Plan) -> str | None:
        """Return why consent no longer covers what was begun as `plan`; None while it does.

        A lease stays under the grant that it began under, even where another would cover it:
        by that grant's id `lender revoke` finds its processes without the daemon.
        """
        begun_under = plan.grant
        grant = self.grants.get(begun_under.id)
        if grant is not None:
            covered = Consent((grant,)).covers(ask_of(plan.spec), now)
            return None if covered == grant else f"grant {grant.id} no longer allows it"
        if begun_under.id in self.consent.revoked:
            return f"the owner revoked grant {begun_under.id}"
        if now >= begun_under.not_after:
            return f"grant {begun_under.id} expired"
        return f"the owner withdrew grant {begun_under.id}"

    def _name_classes(self) -> None:
        if self._capabilities is not None:
            lent = self.lent(self._capabilities)
            self.classes = class_tokens(self._config, lent, self.open.grants)
            self.nets = offered_nets(self._config, lent, self.open.grants)
