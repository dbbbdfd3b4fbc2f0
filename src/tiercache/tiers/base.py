"""The two storage protocols: a local tier is synchronous and cannot fail, a remote one can.

A remote tier stores sealed payloads under *slots*. A slot holds nothing, a lease or a value:

    nothing | lease(token, run) | value(token, run, {tag: tag token}, payload)

Absence is never a token. A miss writes a lease with a fresh random token and remembers it as a
`Basis`; a fill replaces exactly that; an invalidation deletes the slot. So whatever a server
forgets (a restart, an eviction, FLUSHALL) is an invalidation by itself, and a load that began
before an invalidation finds nothing to replace when it comes to fill. Tags work the same way: a
random token per tier and tag, made by a miss, deleted by an invalidation, compared on reading.
``run`` names the server's life (its run id), so that what comes back from a snapshot is a miss.

A lease is the single flight across processes as well: who asks patiently leaves somebody else's
alone (`Leased`), and whoever fills or releases it learns that it was waited for (`Filled`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from tiercache._clock import Clock
    from tiercache.entry import Slot

Kind = Literal["redis", "database"]


class Ask(NamedTuple):
    """One entry that is wanted. ``tags=None`` takes it with whatever tags it carries.

    ``seen`` is the token of a value that was read and is of no use: a patient lease may replace it.
    """

    key: str
    tags: tuple[str, ...] | None
    seen: bytes = b""


class Basis(NamedTuple):
    """What a fill may replace: the lease or value that was there when the load began.

    ``tags`` pairs each tag with the tier's token for it, in the order that was asked.
    """

    key: str
    token: bytes
    tags: tuple[tuple[str, bytes], ...]
    run: bytes


class Leased(NamedTuple):
    """A slot that a patient lease left alone: somebody else's lease, by its token.

    It ends in ``remaining`` seconds unless its holder keeps it alive. 0 says that there is no lease
    to wait for: it was filled or emptied just now, so it is worth reading again.
    """

    token: bytes
    remaining: float


class Stored(NamedTuple):
    """A readable value: the sealed payload, and the basis on which a refresh may replace it."""

    payload: bytes
    basis: Basis


class Fill(NamedTuple):
    """A load's result on its way into a tier; ``ttl`` as the server counts it, in seconds."""

    basis: Basis
    payload: bytes
    ttl: float | None


class Filled(IntEnum):
    """What became of a `Fill`; true where the value can be read now."""

    REFUSED = 0
    """The slot does not hold the basis any more."""
    STORED = 1
    AWAITED = 2
    """Stored, and somebody waited for the lease."""
    IN_VAIN = 3
    """The lease is used up, and was waited for, but a tag is no more what it was."""

    def __bool__(self) -> bool:
        return self in (Filled.STORED, Filled.AWAITED)


class LocalTier(Protocol):
    """Slots in the memory of this process.

    ``lookup`` is called without a lock, from any thread; everything else under the cache's lock.
    """

    @property
    def touch(self) -> Callable[[Slot], None] | None:
        """What a hit has to call; None when counting ``slot.visited`` is enough."""
        ...

    def bind(self, clock: Clock, evicted: Callable[[str], None]) -> None:
        """Attach to one cache; ``evicted(reason)`` is called once for every slot that leaves."""
        ...

    def lookup(self, key: str, /) -> Slot | None:
        """Return the slot of the key as it is, expired or void ones included."""
        ...

    def store(self, slot: Slot) -> bool:
        """Put a slot in the place of any other of its key; False if it is too large to be held."""
        ...

    def discard(self, key: str) -> bool:
        """Take the key's slot out and retire it; False if there was none."""
        ...

    def clear(self) -> int:
        """Retire every slot; return how many there were."""
        ...

    def sweep(self, limit: int) -> int:
        """Retire up to ``limit`` slots whose time is over; return how many it did."""
        ...


class Operations(Protocol):
    """What is asked of a remote tier, in batches; answers come in the order of the asks.

    A failure is a `TierError`. Every operation is safe to repeat.
    """

    async def read(self, asks: Sequence[Ask]) -> list[Stored | None]:
        """Return each value that is readable: its run, its tags and all their tokens agree."""
        ...

    async def lease(
        self, asks: Sequence[Ask], ttl: float, patient: bool = False
    ) -> list[Basis | Leased]:
        """Put a fresh lease of ``ttl`` seconds in each slot and make missing tag tokens.

        Called after a read that missed: the slot's lease or unreadable value is replaced. Asked
        patiently, a live lease is left alone, and marked as waited for; so is a value that came
        since the read.
        """
        ...

    async def renew(self, bases: Sequence[Basis], ttl: float) -> list[bool]:
        """Let each lease live ``ttl`` seconds from now; False where it is not there any more."""
        ...

    async def release(self, bases: Sequence[Basis]) -> list[bool]:
        """Empty each slot that still holds exactly this lease; for loads that came to nothing.

        True where it did and somebody waited for it.
        """
        ...

    async def fill(self, fills: Sequence[Fill]) -> list[Filled]:
        """Replace each slot that still holds its basis."""
        ...

    async def invalidate(
        self, keys: Sequence[str], tags: Sequence[str], events: Sequence[bytes] = ()
    ) -> None:
        """Delete slots and tag tokens; publish the events with it if the bus rides on this tier."""
        ...

    async def clear(self, events: Sequence[bytes] = ()) -> None:
        """Make every entry of this cache unreadable at once; never walks the keys."""
        ...


class Blocking(Protocol):
    """`Operations` in the caller's thread, for a tier that can be read without a loop."""

    def read(self, asks: Sequence[Ask]) -> list[Stored | None]:
        """As `Operations.read`."""
        ...

    def lease(self, asks: Sequence[Ask], ttl: float, patient: bool = False) -> list[Basis | Leased]:
        """As `Operations.lease`."""
        ...

    def release(self, bases: Sequence[Basis]) -> list[bool]:
        """As `Operations.release`."""
        ...

    def fill(self, fills: Sequence[Fill]) -> list[Filled]:
        """As `Operations.fill`."""
        ...

    def invalidate(
        self, keys: Sequence[str], tags: Sequence[str], events: Sequence[bytes] = ()
    ) -> None:
        """As `Operations.invalidate`."""
        ...

    def clear(self, events: Sequence[bytes] = ()) -> None:
        """As `Operations.clear`."""
        ...


class RemoteTier(Operations, Protocol):
    """A tier outside this process; works on every event loop that calls it, by clients per loop."""

    @property
    def kind(self) -> Kind:
        """What it is, in statistics, metrics and errors."""
        ...

    @property
    def timeout(self) -> float:
        """Seconds after which an operation is given up."""
        ...

    def bind(self, namespace: str) -> None:
        """Attach to one cache; ``namespace`` (its name) keeps its keys apart from other caches'."""
        ...

    async def open(self) -> None:
        """Connect and make what is needed (a schema); idempotent. `TierError` when it cannot."""
        ...

    async def ping(self) -> None:
        """Answer, or raise `TierError`; what a half-open circuit asks."""
        ...

    async def prune(self, limit: int) -> int:
        """Delete up to ``limit`` entries whose time is over; 0 where the server does it itself."""
        ...

    async def aclose(self) -> None:
        """Close the clients of every loop that is still alive, wherever it is called."""
        ...


@runtime_checkable
class SupportsSync(Protocol):
    """A remote tier that can also be used without a loop."""

    @property
    def blocking(self) -> Blocking | None:
        """The same operations in the caller's thread; None where this instance cannot."""
        ...
