"""What ends the broker, beside what its link and its deployment raise."""


class ConnectionClosedError(Exception):
    """The NATS server refuses us for good."""
