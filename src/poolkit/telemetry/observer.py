"""The seam between the pool and whoever watches it. The null observer is what tests use.

Borrowing is the hot path: it reports no call per borrow, it appends to ``waits`` and ``uses``
where somebody listens (``recording``), and the observer empties them when it is read.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from poolkit.stats import PoolStats

Outcome = Literal["commit", "rollback", "unknown"]


class Figures(Protocol):
    """What a pool shows to observable instruments; read from the exporter's thread."""

    @property
    def name(self) -> str:
        """The pool's name."""
        ...

    @property
    def min_size(self) -> int:
        """Connections kept at all times."""
        ...

    def stats(self) -> PoolStats:
        """Return the figures of this moment."""
        ...


class TransactionScope(Protocol):
    """One transaction under observation."""

    def end(self, outcome: Outcome, error: BaseException | None) -> None:
        """Take its outcome, and the error that leaves the library, if any."""
        ...


class Observer(Protocol):
    """Is told what happened. Never raises, never sees a parameter."""

    recording: bool
    """Whether anybody takes what is put into ``waits`` and ``uses``."""
    waits: deque[float]
    """Seconds each borrower waited."""
    uses: deque[float]
    """Seconds each connection was out."""

    def watch(self, figures: Figures) -> None:
        """Publish a pool's figures for as long as it lives (a weak reference is kept)."""
        ...

    def waited(self, seconds: float, error: BaseException | None) -> None:
        """Take a wait of note: longer than 1 ms, or without success."""
        ...

    def connected(self, seconds: float, error: BaseException | None) -> None:
        """Take an attempt to connect."""
        ...

    def closed(self, reason: str) -> None:
        """Take a connection that was closed."""
        ...

    def leaked(self) -> None:
        """Take a connection that was out for too long."""
        ...

    def retried(self, sqlstate: str) -> None:
        """Take a transaction that will be run again."""
        ...

    def transaction(self, isolation: str | None, readonly: bool, attempt: int) -> TransactionScope:
        """Begin to observe a transaction; its span is current until it ends."""
        ...


class _NullScope:
    __slots__ = ()

    def end(self, outcome: Outcome, error: BaseException | None) -> None:
        """Do nothing."""


_SCOPE = _NullScope()


class NullObserver:
    """Watches nothing, at the price of a method call."""

    __slots__ = ("recording", "uses", "waits")

    def __init__(self) -> None:
        self.recording = False
        self.waits: deque[float] = deque(maxlen=0)
        self.uses: deque[float] = deque(maxlen=0)

    def watch(self, figures: Figures) -> None:
        """Do nothing."""

    def waited(self, seconds: float, error: BaseException | None) -> None:
        """Do nothing."""

    def connected(self, seconds: float, error: BaseException | None) -> None:
        """Do nothing."""

    def closed(self, reason: str) -> None:
        """Do nothing."""

    def leaked(self) -> None:
        """Do nothing."""

    def retried(self, sqlstate: str) -> None:
        """Do nothing."""

    def transaction(self, isolation: str | None, readonly: bool, attempt: int) -> TransactionScope:
        """Observe nothing."""
        return _SCOPE
