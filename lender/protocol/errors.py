"""Errors at the wire's trust boundary."""


class ProtocolError(Exception):
    """Bytes or fields from outside that don't follow the protocol.

    Attributes:
        field: dotted path of the offending field (`inputs.0.sha256`), or `payload`, `subject`,
            `signature` where the fault is not in one field.
        reason: one sentence for the person who sent it.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
