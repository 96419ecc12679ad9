"""The owner's consent as it holds now: which grants, until when, for which classes."""

import math

from lender.core.admission import ask_of
from lender.core.config import Config
from lender.core.consent import Consent, Grant
from lender.core.events import Capabilities
from lender.core.lease_run import LeaseRun
from lender.core.offering import class_tokens


class ValidConsent:
    """The grants that hold, renewed whenever consent changes or `until` has come.

    Attributes:
        consent: as last read from disk; nothing before.
        grants: those that hold, by id.
        until: when the next of them ends, seconds since the epoch; infinity for never.
        digest: changes when `grants` do.
        classes: what they allow and this machine can run.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._capabilities: Capabilities | None = None
        self.consent = Consent()
        self.grants: dict[str, Grant] = {}
        self.until = -math.inf
        self.digest = ""
        self.classes: tuple[str, ...] = ()

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
            grants = self.grants.values()
            self.classes = class_tokens(self._config, self._capabilities, grants)

    def withdrawn(self, now: float, run: LeaseRun) -> str | None:
        """Return why consent no longer covers `run`, in words; None while it does.

        A lease stays under the grant that it began under, even where another would cover it:
        by that grant's id `lender revoke` finds its processes without the daemon.
        """
        begun_under = run.plan.grant
        grant = self.grants.get(begun_under.id)
        if grant is not None:
            covered = Consent((grant,)).covers(ask_of(run.plan.spec), now)
            return None if covered == grant else f"grant {grant.id} no longer allows it"
        if begun_under.id in self.consent.revoked:
            return f"the owner revoked grant {begun_under.id}"
        if now >= begun_under.not_after:
            return f"grant {begun_under.id} expired"
        return f"the owner withdrew grant {begun_under.id}"
