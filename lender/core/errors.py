"""Errors that mean a fault of ours, never a peer's."""


class IllegalTransitionError(Exception):
    """A state machine was asked for a step that its table does not hold: a bug in the core."""

    def __init__(self, machine: str, state: str, to: str) -> None:
        super().__init__(f"{machine}: no transition {state} -> {to}")
