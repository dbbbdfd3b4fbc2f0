"""What the world looks like between two steps.

Versions of the one row count from 0; writer ``j`` writes version ``j + 1``. Tokens are numbers that
mean nothing but themselves: `World.key` renames them in the order in which they appear, so that
states which differ in names alone are one.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Token = int | Literal["absent"] | None
SlotKind = Literal["lease", "value", "tomb"]
WriterAt = Literal["idle", "tx", "marked", "inv", "unknown", "done", "dead"]
FlightAt = Literal["idle", "l2", "l3", "loader", "fill_l3", "fill_l2", "sent_l2", "fill_l1"]

COMPLETE, INCOMPLETE, PREMATURE = range(3)
"""Events: of a whole pass, of one that missed a tier, of a commit whose outcome is not known."""


class Slot(NamedTuple):
    """What a shared tier holds of the key."""

    kind: SlotKind
    token: Token
    version: int | None = None
    tag: Token = None
    run: int = 0


class Writer(NamedTuple):
    """A transaction that writes the row, and the invalidation that follows it."""

    at: WriterAt = "idle"
    stage: int = 0
    """In a transaction: whether it has read, captured, invalidated early. Later: the pass."""
    late: bool = False
    """Whether the server has yet to carry out a COMMIT that nobody waits for any more."""


class Process(NamedTuple):
    """A process: its L1, and how far it has followed the bus."""

    alive: bool = True
    l1: int | None = None
    handled: int = 0
    """The newest version whose invalidation it has carried out or heard of."""
    cursor: int = 0
    stream: int = 0
    connected: bool = True
    late: bool = False
    """Disconnected for longer than ``bus_timeout``."""
    pending: int = 0
    """The version whose invalidation could not reach every tier; 0 for none."""
    hearing: bool = False
    """Whether it is in the middle of hearing of an incomplete pass."""
    repeating: tuple[int, int] | None = None
    """How far it is with repeating the pass for what is pending: stage and version."""


class Flight(NamedTuple):
    """A load: what it holds in its hands, and what its callers must not be given."""

    process: int
    at: FlightAt
    runs: int
    """How often it may still begin."""
    void: bool = False
    k2: Token = None
    k3: Token = None
    g2: Token = None
    g3: Token = None
    value: int | None = None
    need_l1: int = 0
    need: int = 0
    """The oldest versions that L1, and the tiers below, may answer with."""
    joiner: int | None = None
    """The same for a caller who joined on the way."""
    old: bool = False
    """Older than the tombstone it will find gone."""
    accepted: bool = False
    """Whether L2 held the value, or took it."""


class Relay(NamedTuple):
    """A process on its way through a row of the outbox."""

    process: int
    version: int
    stage: int


class Snapshot(NamedTuple):
    """What a replica or a file knows of Redis."""

    l2: Slot | None
    t2: Token
    marks: int
    epoch: int | None


class World:
    """One state. Its attributes are immutable; a step changes those of a `clone`."""

    def __init__(
        self,
        *,
        writers: tuple[Writer, ...],
        flights: tuple[Flight, ...],
        relays: int,
        budget: tuple[int, ...],
    ) -> None:
        self.db = 0
        self.committed = 1
        """Bit mask of the versions that were ever committed."""
        self.writers = writers
        self.outbox = 0
        """Bit mask of the versions whose row is there."""
        self.l3: Slot | None = None
        self.t3: Token = None
        self.l2: Slot | None = None
        self.t2: Token = None
        self.run = 0
        self.snapshot: Snapshot | Literal["used"] | None = None
        self.log: tuple[tuple[int, int, int], ...] = ()
        """The bus: (source, version, kind)."""
        self.stream = 0
        self.published = (0, 0)
        """Per process the newest version that the other has published."""
        self.acknowledged = 0
        """The newest version whose whole invalidation has returned."""
        self.processes = (Process(), Process())
        self.flights = flights
        self.relays: tuple[Relay | None, ...] = (None,) * relays
        self.captured: Token = None
        """What the `set` inside a transaction found in L2."""
        self.marks = 0
        self.epoch: int | None = 0
        self.budget = budget
        """How often each fault may still happen."""
        self.tokens = 0

    def clone(self) -> World:
        """Return a copy to be changed."""
        copy = World.__new__(World)
        copy.__dict__.update(self.__dict__)
        return copy

    def fresh(self) -> int:
        """Make a token that nobody has seen."""
        self.tokens += 1
        return self.tokens

    def set_process(self, number: int, **changes: Any) -> None:
        """Change a process."""
        every = list(self.processes)
        every[number] = every[number]._replace(**changes)
        self.processes = tuple(every)  # type: ignore[assignment]

    def set_flight(self, number: int, **changes: Any) -> None:
        """Change a flight."""
        every = list(self.flights)
        every[number] = every[number]._replace(**changes)
        self.flights = tuple(every)

    def set_writer(self, number: int, **changes: Any) -> None:
        """Change a writer."""
        every = list(self.writers)
        every[number] = every[number]._replace(**changes)
        self.writers = tuple(every)

    def set_relay(self, number: int, relay: Relay | None) -> None:
        """Change a relay."""
        every = list(self.relays)
        every[number] = relay
        self.relays = tuple(every)

    def key(self, *, rename: bool = True) -> tuple[Any, ...]:
        """Return what the state is equal by; where tokens are values, they are not renamed."""
        if rename:
            self._rename()
        return tuple(self.__dict__.values())

    def _rename(self) -> None:
        names: dict[Token, Token] = {None: None, "absent": "absent"}

        def name(token: Token) -> Token:
            found = names.get(token)
            if found is None and token is not None:
                found = names[token] = len(names) - 1
            return found

        def named(slot: Slot | None) -> Slot | None:
            if slot is None:
                return None
            kind, token, version, tag, run = slot
            return Slot(kind, name(token), version, name(tag), run)

        self.l3, self.t3 = named(self.l3), name(self.t3)
        self.l2, self.t2 = named(self.l2), name(self.t2)
        if isinstance(self.snapshot, Snapshot):
            old = self.snapshot
            self.snapshot = Snapshot(named(old.l2), name(old.t2), old.marks, old.epoch)
        flights = []
        for flight in self.flights:
            if flight[4:8] != _EMPTY:
                k2, k3, g2, g3 = flight[4:8]
                renamed = (name(k2), name(k3), name(g2), name(g3))
                flight = Flight._make((*flight[:4], *renamed, *flight[8:]))
            flights.append(flight)
        self.flights = tuple(flights)
        if self.captured is not None:
            self.captured = name(self.captured)
        self.tokens = len(names) - 2


_EMPTY = (None, None, None, None)
