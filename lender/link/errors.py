"""What can go wrong between us and NATS, sorted by what the caller then knows."""

_UNAVAILABLE = 500


class LinkError(Exception):
    """Root of every error of this package."""


class NotConnectedError(LinkError):
    """There is no server on the line just now: nothing was sent, nothing has happened."""


class NoRespondersError(LinkError):
    """The server answered at once that nobody listens on the subject: nothing has happened."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"nobody listens on {subject}")
        self.subject = subject


class PayloadTooLargeError(LinkError):
    """Payload and headers exceed the server's `max_payload`: nothing was sent.

    Sent all the same, the server would close the connection.
    """

    def __init__(self, size_bytes: int, max_bytes: int) -> None:
        super().__init__(f"a message of {size_bytes} bytes exceeds the server's {max_bytes}")
        self.size_bytes = size_bytes
        self.max_bytes = max_bytes


class OutcomeUnknownError(LinkError):
    """It was sent and no answer came: it may or may not have happened; the caller finds out."""


class DisconnectedError(OutcomeUnknownError):
    """The line broke before the answer."""


class RequestTimeoutError(OutcomeUnknownError):
    """No answer within the time allowed."""

    def __init__(self, subject: str, timeout_s: float) -> None:
        super().__init__(f"no answer on {subject} within {timeout_s} s")
        self.subject = subject


class JetStreamError(LinkError):
    """JetStream's own refusal.

    Attributes:
        code: HTTP-like class (400, 404, 503, ...).
        err_code: the precise reason (the server's errors.json: 10059 stream not found, ...).
        description: the server's words.
    """

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{description} ({err_code})")
        self.code = code
        self.err_code = err_code
        self.description = description


class StrangeAnswerError(LinkError):
    """What came in a server's name is not of its protocol: nothing is known of what happened."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is none of the server's: see what else answers there")


def passing(error: LinkError) -> bool:
    """Tell whether trying again may help: JetStream's 5xx, and a line or an answer that is lost."""
    if isinstance(error, JetStreamError):
        return error.code >= _UNAVAILABLE
    return isinstance(error, NotConnectedError | NoRespondersError | OutcomeUnknownError)
