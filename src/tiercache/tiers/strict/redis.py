"""Redis as strict readers see it: with the marks of transactions that are about to commit.

A value of a strict reader carries the epoch of the marks as the token of one more tag. So it is
unreadable as soon as the marks are lost, and to everybody who does not ask for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tiercache._redis import frames, strict
from tiercache._redis.frames import TOKEN as SIZE
from tiercache._redis.scripts import TOKEN
from tiercache._redis.server import refuse
from tiercache._redis.strict import EPOCH_TAG, Founded, Header, Mark, fields_of
from tiercache.errors import TierError
from tiercache.tiers.base import Ask, Basis, Fill, Filled, Kind, Leased, Stored
from tiercache.tiers.strict.sight import Sight, is_nowhere, nowhere

if TYPE_CHECKING:
    from tiercache._redis.client import Answer
    from tiercache._redis.link import Command
    from tiercache.tiers.redis import RedisTier

RELIANCE: Final = 1.0
"""Seconds for which a process that found no marks may commit without asking again."""

_ATTEMPTS: Final = 3
_REMEMBERED: Final = 4096


class Marks(NamedTuple):
    """The state of the marks; ``ready`` is None where there are none in this life."""

    ready: bool | None
    old: list[Mark]


class StrictRedis:
    """A `StrictTier` upon the entries of a `RedisTier`, and the marks beside them."""

    def __init__(self, tier: RedisTier, namespace: str) -> None:
        self._tier = tier
        self._server = tier.server
        self._names = frames.Names(namespace)
        self._useless: dict[bytes, bytes] = {}
        self.ready = False
        """Whether the epoch was ready when the marks were last seen."""

    @property
    def kind(self) -> Kind:
        """``redis``."""
        return "redis"

    @property
    def timeout(self) -> float:
        """Seconds after which an operation is given up."""
        return self._tier.timeout

    def bind(self, namespace: str) -> None:
        """Nothing: the tier below is bound."""

    async def open(self) -> None:
        """Connect."""
        await self._tier.open()

    async def ping(self) -> None:
        """Answer, or raise `TierError`."""
        await self._tier.ping()

    async def prune(self, limit: int) -> int:
        """Return 0: Redis drops by itself what is past its time."""
        return 0

    async def aclose(self) -> None:
        """Nothing: the connections are those of the tier below."""

    # -- entries ------------------------------------------------------------------------------

    async def read(self, asks: Sequence[Ask]) -> list[Stored | None]:
        """Return each value that is readable and not marked."""
        return [sight.stored for sight in await self.look(asks)]

    async def look(self, asks: Sequence[Ask]) -> list[Sight]:
        """Read marks, slots and tags in one round trip; a second one for unnamed tags."""
        if not asks:
            return []
        names = self._names
        tags = list(dict.fromkeys(tag for ask in asks for tag in ask.tags or ()))
        slots = [names.slot(ask.key) for ask in asks]
        fields = list(dict.fromkeys(field for ask in asks for field in _fields(ask)))
        keys = [names.generation, *slots, *map(names.tag, tags)]
        commands = [strict.ask(names, fields), (b"MGET", *keys)]
        answer = await self._call(lambda _: commands, "read", any_life=True)
        head = strict.header(answer.replies[0], fields, answer.run)
        generation, *found = answer.replies[1]
        tokens = {tag: token for tag, token in zip(tags, found[len(asks) :], strict=True) if token}
        self.ready = head.ready
        sights: list[Sight] = []
        unnamed: list[tuple[int, Ask]] = []
        for ask, slot, raw in zip(asks, slots, found, strict=False):
            if not head.ready or not head.marked.isdisjoint(_fields(ask)):
                sights.append(Sight(None, round=True))
                continue
            value = None
            if raw is not None and generation is not None:
                value = _read(raw, answer.run, generation, ask.tags, tokens, head.epoch or b"")
                if value is None:
                    self._note(slot, raw)
                elif ask.tags is None and value.tags:
                    unnamed.append((len(sights), Ask(ask.key, tuple(tag for tag, _ in value.tags))))
                    value = None
            sights.append(Sight(value and _stored(ask.key, value, answer.run + generation, head)))
        if unnamed:
            again = await self.look([ask for _, ask in unnamed])
            for (index, _), sight in zip(unnamed, again, strict=True):
                sights[index] = sight
        return sights

    async def lease(
        self, asks: Sequence[Ask], ttl: float, patient: bool = False
    ) -> list[Basis | Leased]:
        """Lease what is not marked; the rest goes nowhere."""
        if not asks:
            return []
        names = self._names
        tags = list(dict.fromkeys(tag for ask in asks for tag in ask.tags or ()))
        life = _milliseconds(
            ttl + frames.GRACE
        )  # leases are renewed, and tags have to outlive them
        makes = [TOKEN.on((names.generation,), os.urandom(SIZE), b"-1")]
        makes += [TOKEN.on((names.tag(tag),), os.urandom(SIZE), life) for tag in tags]
        leases = [os.urandom(SIZE) for _ in asks]

        def commands(run: bytes) -> list[Command]:
            return [
                *makes,
                *(take(ask, token, run) for ask, token in zip(asks, leases, strict=True)),
            ]

        def take(ask: Ask, token: bytes, run: bytes) -> Command:
            useless = self._useless.pop(names.slot(ask.key), b"") if patient else b"nil"
            if ask.seen and patient:
                useless = frames.identity(ask.seen, run)
            return strict.STRICT_LEASE.on(
                (names.slot(ask.key), names.marks),
                frames.lease(token, run), life, useless, run, *_fields(ask),
            )  # fmt: skip

        answer = await self._call(commands, "lease")
        generation, *made = answer.replies[: len(makes)]
        tokens = dict(zip(tags, made, strict=True))
        taken = answer.replies[len(makes) :]
        return [
            self._leased(ask, token, reply, answer.run + generation, tokens)
            for ask, token, reply in zip(asks, leases, taken, strict=True)
        ]

    @staticmethod
    def _leased(
        ask: Ask, token: bytes, reply: Any, life: bytes, tokens: Mapping[str, bytes]
    ) -> Basis | Leased:
        """Read the answer to one lease."""
        if isinstance(reply, list):
            held = frames.held(reply[0])
            return Leased(held or b"", 0.0 if held is None else max(reply[1], 0) / 1000)
        if not isinstance(reply, bytes):
            return nowhere(ask.key)
        own = tuple((tag, tokens[tag]) for tag in dict.fromkeys(ask.tags or ()))
        return Basis(ask.key, token, own, life + reply)

    async def renew(self, bases: Sequence[Basis], ttl: float) -> list[bool]:
        """As `Operations.renew`."""
        alive = iter(await self._tier.renew(_real(bases), ttl))
        return [is_nowhere(basis) or next(alive) for basis in bases]

    async def release(self, bases: Sequence[Basis]) -> list[bool]:
        """As `Operations.release`."""
        awaited = iter(await self._tier.release(_real(bases)))
        return [not is_nowhere(basis) and next(awaited) for basis in bases]

    async def fill(self, fills: Sequence[Fill]) -> list[Filled]:
        """Replace each slot that still holds its basis, while nothing of it is marked."""
        runs: dict[bytes, list[int]] = {}
        results = [Filled.REFUSED] * len(fills)
        for index, fill in enumerate(fills):
            if not is_nowhere(fill.basis):
                runs.setdefault(fill.basis.run[:SIZE], []).append(index)
        for run, places in runs.items():
            answers = await self._fill([fills[place] for place in places], run)
            for place, filled in zip(places, answers, strict=True):
                results[place] = filled
        return results

    async def invalidate(
        self, keys: Sequence[str], tags: Sequence[str], events: Sequence[bytes] = ()
    ) -> None:
        """As `Operations.invalidate`."""
        await self._tier.invalidate(keys, tags, events)

    async def clear(self, events: Sequence[bytes] = ()) -> None:
        """As `Operations.clear`."""
        await self._tier.clear(events)

    # -- marks --------------------------------------------------------------------------------

    async def found(self, ready: bytes = b"") -> Founded:
        """Return the epoch, begun if there is none; ``ready`` is one that may be called so."""
        keys, fresh = (self._names.marks, self._names.reliance), os.urandom(SIZE)
        answer = await self._call(lambda run: [strict.FOUND.on(keys, run, fresh, ready)], "mark")
        epoch, is_ready, relied = answer.replies[0]
        self.ready = bool(is_ready)
        return Founded(epoch, self.ready, max(relied, 0) / 1000)

    async def in_use(self) -> bool:
        """Return whether there are marks. If not, that may be relied on for `RELIANCE` seconds."""
        keys = (self._names.marks, self._names.reliance)
        # Whoever begins an epoch waits a little longer than those who rely on there being none.
        rely = _milliseconds(RELIANCE * 1.5)
        answer = await self._call(lambda run: [strict.RELY.on(keys, run, rely)], "mark")
        return bool(answer.replies[0])

    async def mark(self, mark: Mark) -> None:
        """Mark, until `unmark`; where there are no marks, begin them."""
        keys, fresh = (self._names.marks,), os.urandom(SIZE)
        rest = (fresh, mark.owner.encode(), mark.about(), *mark.names.fields)
        await self._call(lambda run: [strict.MARK.on(keys, run, *rest)], "mark")

    async def unmark(self, mark: Mark, *, delete: bool) -> None:
        """Take the mark away; with ``delete``, after what was marked, in one step."""
        names, doomed = mark.names, list[bytes]()
        if delete:
            doomed = [*map(self._names.slot, names.keys), *map(self._names.tag, names.tags)]
            doomed += [self._names.generation] * names.everything
        command = strict.UNMARK.on((self._names.marks, *doomed), mark.owner.encode(), *names.fields)
        await self._call(lambda _: [command], "unmark", any_life=True)

    async def marks(self, age: float) -> Marks:
        """Return the marks that are older, in seconds."""
        keys, limit = (self._names.marks,), b"%d" % round(age * 1000)
        answer = await self._call(lambda run: [strict.OLD.on(keys, run, limit)], "marks")
        ready, *pairs = answer.replies[0]
        self.ready = ready > 0
        if ready < 0:
            return Marks(None, [])
        return Marks(bool(ready), list(map(Mark.read, pairs[::2], pairs[1::2])))

    # How

    async def _call(
        self,
        commands: Callable[[bytes], Sequence[Command]],
        operation: str,
        *,
        any_life: bool = False,
    ) -> Answer:
        """Send what is to be said to this life of the server; to the next, if it is over."""
        from tiercache._redis.client import RunChanged

        run = b"" if any_life else await self._server.run(operation)
        for _ in range(_ATTEMPTS):
            try:
                answer = await self._server.call(commands(run), operation, run=run or None)
            except RunChanged as changed:
                run = changed.run
                continue
            refuse(answer.replies, self._server, operation)
            return answer
        raise TierError(
            f"Redis at {self._server.address} answered as another server each time it was asked",
            tier="redis",
            operation=operation,
        )

    def _note(self, slot: bytes, raw: bytes) -> None:
        """Remember a value that is of no use to anybody, so that a patient lease replaces it."""
        if raw[:1] == frames.VALUE:
            if len(self._useless) > _REMEMBERED:
                self._useless.clear()
            self._useless[slot] = raw[1 : 1 + 2 * SIZE]

    async def _fill(self, fills: Sequence[Fill], run: bytes) -> list[Filled]:
        from tiercache._redis.client import RunChanged

        names = self._names
        writes: list[Command] = []
        lives: dict[bytes, bytes] = {names.generation: b"-1"}
        for fill in fills:
            basis = fill.basis
            generation, epoch = basis.run[SIZE : 2 * SIZE], basis.run[2 * SIZE :]
            tags = {**dict(basis.tags), EPOCH_TAG: epoch}
            life = b"-1" if fill.ttl is None else _milliseconds(fill.ttl)
            value = frames.value(os.urandom(SIZE), run, generation, tags, fill.payload)
            writes.append(
                strict.STRICT_FILL.on(
                    (names.slot(basis.key), names.marks),
                    frames.identity(basis.token, run), value, life, run, epoch,
                    strict.EVERYTHING, *fields_of([basis.key], dict(basis.tags)),
                )
            )  # fmt: skip
            for tag, _ in basis.tags:
                name = names.tag(tag)
                lives[name] = _longer(lives.get(name, life), life)
        extends = [TOKEN.on((name,), b"", life) for name, life in lives.items()]
        try:
            answer = await self._server.call([*writes, *extends], "fill", run=run)
        except RunChanged:
            return [Filled.REFUSED] * len(fills)
        refuse(answer.replies, self._server, "fill")
        current = dict(zip(lives, answer.replies[len(writes) :], strict=True))

        def outcome(fill: Fill, reply: int) -> Filled:
            basis = fill.basis
            if not reply:
                return Filled.REFUSED
            readable = current[names.generation] == basis.run[SIZE : 2 * SIZE] and all(
                current[names.tag(tag)] == token for tag, token in basis.tags
            )
            if readable:
                return Filled.AWAITED if reply == 2 else Filled.STORED
            return Filled.IN_VAIN if reply == 2 else Filled.REFUSED

        return [outcome(fill, reply) for fill, reply in zip(fills, answer.replies, strict=False)]


def _fields(ask: Ask) -> list[bytes]:
    """Return where the marks of what is asked for stand."""
    return [strict.EVERYTHING, *fields_of([ask.key], ask.tags or ())]


def _read(
    raw: bytes,
    run: bytes,
    generation: bytes,
    tags: tuple[str, ...] | None,
    tokens: Mapping[str, bytes],
    epoch: bytes,
) -> frames.Value | None:
    """Return a strict value of this epoch; without ``tags`` its own are still to be compared."""
    if tags is None:
        value = frames.parse(raw, run, generation)
        if value is None or (EPOCH_TAG, epoch) not in value.tags:
            return None
        return value._replace(tags=tuple(pair for pair in value.tags if pair[0] != EPOCH_TAG))
    if not all(tag in tokens for tag in tags):
        return None
    own = {tag: tokens[tag] for tag in tags}
    value = frames.read(raw, run, generation, {**own, EPOCH_TAG: epoch})
    return value and value._replace(tags=tuple(own.items()))


def _stored(key: str, value: frames.Value, life: bytes, head: Header) -> Stored:
    return Stored(value.payload, Basis(key, value.token, value.tags, life + (head.epoch or b"")))


def _real(bases: Sequence[Basis]) -> list[Basis]:
    return [basis for basis in bases if not is_nowhere(basis)]


def _milliseconds(seconds: float) -> bytes:
    return b"%d" % max(1, round(seconds * 1000))


def _longer(one: bytes, other: bytes) -> bytes:
    return b"-1" if b"-1" in (one, other) else max(one, other, key=int)
