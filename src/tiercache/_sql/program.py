"""A `Program` is an operation without its I/O: it yields statements and is sent their rows.

One description serves every way of running it (on a loop, in the caller's thread, in a test) and
both dialects share the types below.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from enum import Enum, auto
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

T = TypeVar("T")

Row = Any
"""A row of a driver: ``row[0]`` works."""


class Statement(NamedTuple):
    """One statement and its parameters, ``$1`` and on; each answers with its rows, maybe none."""

    sql: str
    args: tuple[object, ...] = ()


VERSION: Final = "2"
"""Of the schema; another one in the database is refused."""

GRACE: Final = 3600.0
"""Seconds that a tag is kept beyond a lease or entry, so that a late fill still finds it."""

Program = Generator[Statement, Sequence[Row], T]


class Need(Enum):
    """What a program does to the database."""

    READ = auto()
    WRITE = auto()
    """It may be forgotten when the machine loses power: that is a miss."""
    DURABLE = auto()
    """It must not: what it took away would come back."""


class Job(NamedTuple, Generic[T]):
    """A program that can be begun any number of times; ``operation`` is its name in errors."""

    operation: str
    make: Callable[[], Program[T]]
    need: Need
    several: bool = False
    """It has several statements: one transaction saves commits, where that counts."""
    atomic: bool = False
    """It is one transaction, or wrong."""


Reading = tuple[str, tuple[object, ...]]
"""A statement that reads, so it sees one moment, and its parameters.

Plain: each read makes one, and a named tuple would cost more to make than all its parts.
"""

Question = tuple[Reading, Callable[[Sequence[Row]], T]]
"""What is read, and what its rows mean."""


def program_of(question: Question[T]) -> Program[T]:
    """Return the program that asks this and nothing else."""
    reading, answer = question
    return answer((yield Statement(*reading)))


class Lease(NamedTuple):
    """A lease on its way into a slot."""

    key: str
    token: str


class Held(NamedTuple):
    """Somebody's lease: its token, and the seconds until it ends.

    No token and no time stand for what was filled or emptied in this moment.
    """

    key: str
    token: str
    remaining: float


class Value(NamedTuple):
    """A value on its way into a slot; ``ttl`` in seconds, None for ever.

    ``tags`` is a JSON object of folded tags and their tokens, ``names`` one of those folded tags
    that are not their own names any more, and what they were; None without such.
    """

    key: str
    token: str
    run: str
    tags: str
    names: str | None
    payload: bytes
    ttl: float | None


def longest(values: Sequence[Value]) -> float | None:
    """Return the ttl that none of the values exceeds; None for ever."""
    ttls = [value.ttl for value in values if value.ttl is not None]
    return max(ttls, default=0.0) if len(ttls) == len(values) else None


class Replacement(NamedTuple):
    """A value that may only replace what ``held`` is the token of."""

    held: str
    value: Value


class Dialect(Protocol):
    """The operations as one database wants them. Names are folded, batches sorted and distinct.

    Every program is either one statement or safe to stop after any of its statements, so it
    needs a transaction for speed alone (SQLite), never for being right.
    """

    def schema(self) -> tuple[str, ...]:
        """Return the statements that make the schema, each safe to repeat."""
        ...

    def version(self) -> Program[str | None]:
        """Return the version of the schema that is there; None without one."""
        ...

    def create(self) -> Program[None]:
        """Make what is missing of the schema; runs in a transaction, maybe beside others."""
        ...

    def read(self, namespace: str, keys: list[str], plain: bool = False) -> Reading:
        """Ask for the values that are readable: their run and their tags' tokens are current.

        The rows, in any order, are ``token, run, payload, key, tags, names``. ``plain`` asks only
        for values without tags: the rows end with the key, and with the payload for a single one.
        """
        ...

    def lease(
        self,
        namespace: str,
        tags: Mapping[str, str],
        leases: list[Lease],
        ttl: float,
        seen: list[str] | None = None,
    ) -> Program[tuple[dict[str, str], set[str]]]:
        """Put the leases into their slots; return the tokens of the tags, and the keys leased.

        ``tags`` brings a fresh token for each, which becomes the tag's where it has none. With
        ``seen``, if only an empty list, live leases are left alone, and so are readable values
        whose token is not ``seen``.
        """
        ...

    def await_leases(self, namespace: str, keys: list[str]) -> Program[list[Held]]:
        """Mark the live leases of these slots as waited for, and return them."""
        ...

    def renew(self, namespace: str, leases: list[Lease], ttl: float) -> Program[set[str]]:
        """Let these leases live on; return the tokens of those that are there."""
        ...

    def release(self, namespace: str, leases: list[Lease]) -> Program[set[str]]:
        """Empty the slots that hold these leases; return the tokens of those waited for."""
        ...

    def fill(
        self, namespace: str, tags: list[str], replacements: list[Replacement]
    ) -> Program[dict[str, bool]]:
        """Replace where the held token, the run and the tags are current.

        Return the tokens of the values that are there now, and whether somebody waited for them.
        """
        ...

    def delete_keys(self, namespace: str, keys: list[str]) -> Program[None]:
        """Empty the slots."""
        ...

    def delete_tags(self, namespace: str, tags: list[str]) -> Program[None]:
        """Delete the tokens of the tags."""
        ...

    def expire(self, limit: int) -> Program[int]:
        """Delete up to ``limit`` slots and tags whose time is over, of every namespace."""
        ...

    def sweep(self, after: Position, limit: int) -> Program[Swept]:
        """Look at the next ``limit`` slots in order and delete those that nobody can read."""
        ...


class Position(NamedTuple):
    """Where a walk over all slots stands: the last slot it looked at."""

    namespace: str
    key: str


START = Position("", "")


class Swept(NamedTuple):
    """What one step of the walk deleted, and where it stands; `START` again after the last slot."""

    deleted: int
    at: Position
