"""A remote tier in memory, which fails when the test wants it to and notes what it was asked."""

import itertools
from collections.abc import Sequence
from typing import Literal

from tiercache.errors import TierError
from tiercache.tiers.base import Ask, Basis, Fill, Filled, Leased, Stored

Kind = Literal["redis", "database"]


class FakeRemote:
    """A `RemoteTier` on dictionaries: ``away`` is not available, ``refuses`` some operations."""

    timeout = 5.0

    def __init__(self, kind: Kind, log: list[str] | None = None) -> None:
        self.kind: Kind = kind
        self.away = False
        self.refuses: set[str] = set()
        self.log: list[str] = [] if log is None else log
        self.events: list[bytes] = []
        self.values: dict[str, tuple[Basis, bytes]] = {}
        self.leases: dict[str, bytes] = {}
        self.awaited: set[str] = set()
        self.left = 30.0
        """Seconds that any lease still has."""
        self.tags: dict[str, bytes] = {}
        self.run = b"run"
        self._tokens = itertools.count()

    def bind(self, namespace: str) -> None:
        """Do nothing: it has one namespace."""

    async def open(self) -> None:
        """Answer, if it is there."""
        self._asked("open")

    async def ping(self) -> None:
        """Answer, if it is there."""
        self._asked("ping")

    async def prune(self, limit: int) -> int:
        """Have nothing to delete."""
        return 0

    async def aclose(self) -> None:
        """Do nothing."""

    async def read(self, asks: Sequence[Ask]) -> list[Stored | None]:
        """As `Operations.read`."""
        self._asked("read")
        return [self._read(ask) for ask in asks]

    def _read(self, ask: Ask) -> Stored | None:
        basis, payload = self.values.get(ask.key, (None, b""))
        if basis is None or basis.run != self.run:
            return None
        if any(self.tags.get(tag) != token for tag, token in basis.tags):
            return None
        if ask.tags is not None and ask.tags != tuple(tag for tag, _ in basis.tags):
            return None
        return Stored(payload, basis)

    async def lease(
        self, asks: Sequence[Ask], ttl: float, patient: bool = False
    ) -> list[Basis | Leased]:
        """As `Operations.lease`."""
        self._asked("lease")
        return [self._lease(ask, patient) for ask in asks]

    def _lease(self, ask: Ask, patient: bool) -> Basis | Leased:
        stored = self._read(ask)
        if patient and ask.key in self.leases:
            self.awaited.add(ask.key)
            return Leased(self.leases[ask.key], self.left)
        if patient and stored is not None and stored.basis.token != ask.seen:
            return Leased(b"", 0.0)
        basis = self._basis(ask.key, ask.tags or ())
        self.values.pop(ask.key, None)
        self.leases[ask.key] = basis.token
        return basis

    async def renew(self, bases: Sequence[Basis], ttl: float) -> list[bool]:
        """As `Operations.renew`."""
        self._asked("renew")
        return [self.leases.get(basis.key) == basis.token for basis in bases]

    def _basis(self, key: str, tags: Sequence[str]) -> Basis:
        tokens = tuple((tag, self.tags.setdefault(tag, self._token())) for tag in tags)
        return Basis(key, self._token(), tokens, self.run)

    def _token(self) -> bytes:
        return b"%d" % next(self._tokens)

    async def release(self, bases: Sequence[Basis]) -> list[bool]:
        """As `Operations.release`."""
        self._asked("release")
        return [self._release(basis) for basis in bases]

    def _release(self, basis: Basis) -> bool:
        if self.leases.get(basis.key) != basis.token:
            return False
        del self.leases[basis.key]
        return self._heed(basis.key)

    def _heed(self, key: str) -> bool:
        awaited = key in self.awaited
        self.awaited.discard(key)
        return awaited

    async def fill(self, fills: Sequence[Fill]) -> list[Filled]:
        """As `Operations.fill`."""
        self._asked("fill")
        return [self._fill(fill) for fill in fills]

    def _fill(self, fill: Fill) -> Filled:
        key, token, tags, run = fill.basis
        held = self.leases.get(key)
        value = self.values.get(key)
        if token != held and (value is None or token != value[0].token):
            return Filled.REFUSED
        if run != self.run or any(self.tags.get(tag) != each for tag, each in tags):
            return Filled.REFUSED
        self.leases.pop(key, None)
        self.values[key] = fill.basis._replace(token=self._token()), fill.payload
        return Filled.AWAITED if self._heed(key) else Filled.STORED

    async def invalidate(
        self, keys: Sequence[str], tags: Sequence[str], events: Sequence[bytes] = ()
    ) -> None:
        """As `Operations.invalidate`."""
        self._asked("invalidate")
        for key in keys:
            self.values.pop(key, None)
            self.leases.pop(key, None)
        for tag in tags:
            self.tags.pop(tag, None)
        self.events += events

    async def clear(self, events: Sequence[bytes] = ()) -> None:
        """As `Operations.clear`."""
        self._asked("clear")
        self.run = self._token()
        self.events += events

    def _asked(self, operation: str) -> None:
        if operation != "ping":  # those come by themselves
            self.log.append(f"{self.kind} {operation}")
        if self.away or operation in self.refuses:
            raise TierError(
                f"{operation} failed", tier=self.kind, operation=operation, unavailable=self.away
            )
