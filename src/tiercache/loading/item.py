"""What is carried along the slow path: a call, and what is known about it so far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

from tiercache._flight import Flight
from tiercache.entry import Entry, Slot
from tiercache.policy import CachePolicy
from tiercache.stats import Counters
from tiercache.tiers.base import Ask, Basis, Leased, Stored
from tiercache.tiers.guarded import GuardedTier

_CLAIM: Final = "\x00claim:"


class Call(ABC):
    """One request for one key, as a decorated function or a method of the cache makes it."""

    __slots__ = ("counters", "key", "policy", "tags")

    def __init__(
        self, key: str, tags: tuple[str, ...], policy: CachePolicy, counters: Counters
    ) -> None:
        self.key = key
        self.tags = tags
        self.policy = policy
        self.counters = counters

    @property
    def function(self) -> str | None:
        """The name of the decorated function, where there is one."""
        return None

    @abstractmethod
    def loader(self) -> Any:
        """Call what makes the value; it may return an awaitable."""

    @abstractmethod
    def type(self) -> Any:
        """Return what the codec builds."""

    def names(self, slot: Slot) -> bool:
        """Whether the function's hot path does not find the slot yet, and could."""
        return False

    def name_slot(self, slot: Slot) -> None:  # noqa: B027 - most calls have no names
        """Let the function's hot path find the slot; called under the cache's lock."""


class KeyCall(Call):
    """A request that says by itself how its value is made."""

    __slots__ = ("_function", "_loader", "_type")

    def __init__(
        self,
        key: str,
        tags: tuple[str, ...],
        policy: CachePolicy,
        counters: Counters,
        *,
        loader: Callable[[], Any],
        type_: Callable[[], Any],
        function: str | None = None,
    ) -> None:
        super().__init__(key, tags, policy, counters)
        self._loader = loader
        self._type = type_
        self._function = function

    @property
    def function(self) -> str | None:
        """The name of the decorated function, where there is one."""
        return self._function

    def loader(self) -> Any:
        """Call the loader."""
        return self._loader()

    def type(self) -> Any:
        """Return what the codec builds."""
        return self._type()


class Glimpse(NamedTuple):
    """What was found in the first tier: ``entry`` is what could be read of what is ``stored``."""

    stored: Stored | None
    entry: Entry | None
    failed: bool = False
    """The tier did not answer."""


UNANSWERED: Final = Glimpse(None, None, failed=True)


class Item:
    """One call on the slow path.

    ``bases`` is what its fill may replace, tier by tier; ``leases`` those of them that it made, and
    its claim. ``leased`` is somebody else's lease that was in the way on the last look. ``seen`` is
    the token of a value that was found and cannot be used.
    """

    __slots__ = (
        "awaited",
        "bases",
        "call",
        "coalesced",
        "entry",
        "flight",
        "glimpsed",
        "leased",
        "leases",
        "level",
        "looks",
        "patient",
        "payload",
        "seen",
        "started",
    )

    def __init__(self, call: Call, flight: Flight, glimpse: Glimpse | None = None) -> None:
        self.call = call
        self.flight = flight
        self.bases: dict[GuardedTier, Basis] = {}
        self.leases: list[tuple[GuardedTier, Basis]] = []
        self.entry: Entry | None = None
        self.level: str | None = None
        self.payload: bytes | None = None
        self.started = flight.began
        self.seen = b""
        self.leased: Leased | None = None
        self.patient = False
        """Whether to wait for the load of somebody else."""
        self.coalesced = False
        """Whether it has waited for one."""
        self.looks = 0
        self.glimpsed = glimpse
        """What its first look into the first tier found and could not use."""
        self.awaited = False
        """Whether somebody waits for the lease that has been filled."""

    @property
    def ask(self) -> Ask:
        """What tiers are asked for it."""
        return Ask(self.call.key, self.call.tags, self.seen)

    @property
    def claim(self) -> Ask:
        """What is leased while a value is loaded anew that stays readable meanwhile.

        A slot beside that of the key: its lease says that somebody loads, and nothing else.
        """
        return Ask(_CLAIM + self.call.key, ())

    @property
    def claimed(self) -> bool:
        """Whether it holds its claim."""
        return any(basis.key == self.claim.key for _, basis in self.leases)

    def wait_for(self, leased: Leased) -> None:
        """Note whose lease is in the way; if twice there was none to wait for, wait no more."""
        self.leased = leased
        if not leased.remaining:
            self.looks += 1
            self.patient = self.patient and self.looks < 2


Loader = Callable[[Sequence[Call]], Awaitable[Sequence[object]]]
"""Loads the values of some calls, in their order; `MISSING` for one that has none."""
