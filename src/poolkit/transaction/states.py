"""Where a transaction can stand, and what can be asked of it there."""

from __future__ import annotations

from enum import Enum, auto

from poolkit.driver import PLAIN, Begin

ISOLATION = ("read_uncommitted", "read_committed", "repeatable_read", "serializable")


class State(Enum):
    """Where a transaction stands."""

    __hash__ = object.__hash__  # that of Enum is a call of its own, four times a transaction

    NEW = auto()
    OPEN = auto()
    ENDING = auto()
    COMMITTED = auto()
    ROLLED_BACK = auto()
    UNKNOWN = auto()


class Step(Enum):
    """What can be asked of a transaction."""

    __hash__ = object.__hash__

    ENTER = auto()
    USE = auto()
    LEAVE = auto()


ALLOWED: dict[tuple[State, Step], State] = {
    (State.NEW, Step.ENTER): State.OPEN,
    (State.OPEN, Step.USE): State.OPEN,
    (State.OPEN, Step.LEAVE): State.ENDING,
}
"""Every step that is not here is refused, in words (`REFUSALS`)."""

REFUSALS = {
    State.NEW: "has not begun: enter it with 'async with'",
    State.OPEN: "has begun already: make another with transaction()",
    State.ENDING: "is ending: do it before the block ends, or in before_commit()",
    State.COMMITTED: "has been committed: begin another",
    State.ROLLED_BACK: "has been rolled back: begin another",
    State.UNKNOWN: "has ended without anybody knowing how: begin another",
}
"""Why a step is refused in a state, and the way out."""


def begin_options(isolation: str | None, readonly: bool, deferrable: bool) -> Begin:
    """Check the options of a transaction; ``ValueError`` names what is not known."""
    if isolation is None and not readonly and not deferrable:
        return PLAIN
    if isolation is not None:
        name = isolation.strip().lower().replace(" ", "_")
        if name not in ISOLATION:
            raise ValueError(f"isolation={isolation!r}: expected one of {', '.join(ISOLATION)}")
        isolation = name
    return Begin(isolation, bool(readonly), bool(deferrable))
