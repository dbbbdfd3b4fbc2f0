"""The tier in Redis: one round trip for whatever is asked, safe against stale fills.

A read is one MGET of slots, tags and generation (a second one only for entries whose tags the
reader did not name and that carry some). A lease, a fill and an invalidation are a pipeline each;
nothing is ever done by reading in Python and writing later without comparing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tiercache._redis import frames
from tiercache._redis.address import Address
from tiercache._redis.frames import TOKEN as SIZE
from tiercache._redis.scripts import FILL, LEASE, RELEASE, RENEW, TOKEN
from tiercache._redis.server import Server, refuse
from tiercache._redis.stream import publish
from tiercache.errors import PolicyError, TierError
from tiercache.tiers.base import Ask, Basis, Fill, Filled, Kind, Leased, Stored

if TYPE_CHECKING:
    from tiercache._redis.client import Answer
    from tiercache._redis.link import Command
    from tiercache._redis.scripts import Script

_Number = TypeVar("_Number", int, float)
_ATTEMPTS: Final = 3
_REMEMBERED: Final = 4096
_UNTAGGED: Final[Mapping[str, bytes]] = {}


class RedisTier:
    """Entries in one Redis (or Valkey) database, for every process that names the same one.

    ``timeout`` is the longest an operation may take, in seconds; ``max_connections`` bounds the
    connections of each event loop (calls of one moment share one). Options are those of the URL's
    query too: TLS (``ssl_ca_certs`` …), ``username``, ``password``, ``client_name``. `PolicyError`
    for an address or an option that cannot be meant.
    """

    def __init__(
        self, url: str, *, timeout: float = 0.25, max_connections: int = 8, **options: object
    ) -> None:
        address = Address.parse(url)
        query: dict[str, object] = dict(address.query)
        timeout = _positive("timeout", query.pop("timeout", timeout), float)
        max_connections = _positive(
            "max_connections", query.pop("max_connections", max_connections), int
        )
        self.server: Final = Server(
            address,
            timeout=timeout,
            max_connections=max_connections,
            options={**query, **options},
        )
        self._timeout = timeout
        self._names: frames.Names | None = None
        self._useless: dict[bytes, bytes] = {}
        """What reads found in slots and could not use: what a patient lease may replace."""

    def __repr__(self) -> str:
        return f"RedisTier({str(self.server.address)!r})"

    @property
    def kind(self) -> Kind:
        """``redis``."""
        return "redis"

    @property
    def timeout(self) -> float:
        """Seconds after which an operation is given up."""
        return self._timeout

    def bind(self, namespace: str) -> None:
        """Attach to one cache; its name keeps its keys apart from other caches'.

        Loads redis-py: that takes too long to happen within the timeout of the first request.
        """
        import_module("tiercache._redis.client")
        self._names = frames.Names(namespace)

    async def open(self) -> None:
        """Connect; `TierError` when the server cannot be reached."""
        await self.ping()

    async def ping(self) -> None:
        """Answer, or raise `TierError`."""
        await self._call([(b"PING",)], "ping")

    async def prune(self, limit: int) -> int:
        """Return 0: Redis drops by itself what is past its time."""
        return 0

    async def aclose(self) -> None:
        """Close the connections of every loop that still runs."""
        await self.server.aclose()

    async def read(self, asks: Sequence[Ask]) -> list[Stored | None]:
        """Return each value that is readable: its run, its tags and all their tokens agree."""
        if not asks:
            return []
        names = self._bound
        slots = [names.slot(ask.key) for ask in asks]
        tags = list(dict.fromkeys(tag for ask in asks if ask.tags for tag in ask.tags))
        keys = [names.generation, *slots, *map(names.tag, tags)]
        answer = await self._call([(b"MGET", *keys)], "read")
        [[generation, *found]] = answer.replies
        if generation is None:
            for slot, raw in zip(slots, found, strict=False):
                self._note_useless(slot, raw)
            return [None] * len(asks)
        run, life = answer.run, answer.run + generation
        plain = frames.expected(run, generation, _UNTAGGED)
        tokens = _known(tags, found[len(slots) :]) if tags else _UNTAGGED
        results: list[Stored | None] = []
        unnamed: list[tuple[int, frames.Value]] = []
        for ask, slot, raw in zip(asks, slots, found, strict=False):
            stored = None
            if raw is not None:
                if ask.tags is None:
                    value = frames.parse(raw, run, generation)
                    if value is not None and value.tags:
                        unnamed.append((len(results), value))
                        results.append(None)
                        continue
                    stored = value and _stored(ask.key, value, life)
                elif not ask.tags:
                    payload = frames.payload(raw, plain)
                    if payload is not None:
                        stored = Stored(payload, Basis(ask.key, raw[1 : 1 + SIZE], (), life))
                elif all(tag in tokens for tag in ask.tags):
                    value = frames.read(raw, run, generation, {t: tokens[t] for t in ask.tags})
                    stored = value and _stored(ask.key, value, life)
                if stored is None:
                    self._note_useless(slot, raw)
            results.append(stored)
        if unnamed:
            current = set(await self._current(unnamed))
            for place, (index, value) in enumerate(unnamed):
                if place in current:
                    results[index] = _stored(asks[index].key, value, life)
                else:
                    self._note_useless(slots[index], found[index])
        return results

    async def lease(
        self, asks: Sequence[Ask], ttl: float, patient: bool = False
    ) -> list[Basis | Leased]:
        """Put a fresh lease of ``ttl`` seconds in each slot and make missing tag tokens."""
        if not asks:
            return []
        names = self._bound
        tags = list(dict.fromkeys(tag for ask in asks for tag in ask.tags or ()))
        tokens = _fresh(len(asks))
        life = _milliseconds(ttl)
        make = self._make(tags, _milliseconds(ttl + frames.GRACE))
        useless = [self._useless.pop(names.slot(ask.key), b"") for ask in asks]
        run = await self.server.run("lease")
        for _ in range(_ATTEMPTS):
            takes: list[Command] = []
            for ask, token, seen in zip(asks, tokens, useless, strict=True):
                slot, lease = names.slot(ask.key), frames.lease(token, run)
                if patient:
                    replaceable = frames.identity(ask.seen, run) if ask.seen else seen
                    takes.append(LEASE.on((slot,), lease, life, replaceable))
                else:
                    takes.append((b"SET", slot, lease, b"PX", life))
            answer = await self._call_for(run, [*takes, *make], "lease")
            if isinstance(answer, bytes):
                run = answer
                continue
            generation, *made = answer.replies[len(takes) :]
            current = dict(zip(tags, made, strict=True))
            return [
                _leased(reply)
                if isinstance(reply, list)
                else Basis(
                    ask.key,
                    token,
                    tuple((tag, current[tag]) for tag in dict.fromkeys(ask.tags or ())),
                    run + generation,
                )
                for ask, token, reply in zip(asks, tokens, answer.replies, strict=False)
            ]
        raise TierError(
            f"Redis at {self.server.address} answered as another server each time it was asked",
            tier="redis",
            operation="lease",
        )

    async def renew(self, bases: Sequence[Basis], ttl: float) -> list[bool]:
        """Let each lease live ``ttl`` seconds from now."""
        life = _milliseconds(ttl)
        return [reply == 1 for reply in await self._on_leases(RENEW, bases, "renew", life)]

    async def release(self, bases: Sequence[Basis]) -> list[bool]:
        """Empty each slot that still holds exactly this lease."""
        return [reply == 2 for reply in await self._on_leases(RELEASE, bases, "release")]

    async def fill(self, fills: Sequence[Fill]) -> list[Filled]:
        """Replace each slot that still holds its basis and whose tags are still what they were.

        The ttl of its tags is extended with it. A basis from another life of the server is refused
        without asking.
        """
        results = [Filled.REFUSED] * len(fills)
        runs: dict[bytes, list[int]] = {}
        for index, fill in enumerate(fills):
            runs.setdefault(fill.basis.run[:SIZE], []).append(index)
        for run, places in runs.items():
            answers = await self._fill([fills[place] for place in places], run)
            for place, filled in zip(places, answers, strict=True):
                results[place] = filled
        return results

    async def invalidate(
        self, keys: Sequence[str], tags: Sequence[str], events: Sequence[bytes] = ()
    ) -> None:
        """Delete slots and tag tokens and add the events to the stream, in one step."""
        names = self._bound
        await self._delete([*map(names.slot, keys), *map(names.tag, tags)], events, "invalidate")

    async def clear(self, events: Sequence[bytes] = ()) -> None:
        """Make every entry unreadable by deleting the one token that all of them carry.

        Their memory comes back with their ttl, or when the server evicts them.
        """
        await self._delete([self._bound.generation], events, "clear")

    # How

    @property
    def _bound(self) -> frames.Names:
        if self._names is None:
            raise PolicyError("a tier belongs to a cache: bind(namespace) comes before any use")
        return self._names

    async def _call(self, commands: Sequence[Command], operation: str) -> Answer:
        answer = await self.server.call(commands, operation)
        refuse(answer.replies, self.server, operation)
        return answer

    async def _call_for(
        self, run: bytes, commands: Sequence[Command], operation: str
    ) -> Answer | bytes:
        """Call that life of the server; return the current one if it is another."""
        from tiercache._redis.client import RunChanged

        try:
            answer = await self.server.call(commands, operation, run=run)
        except RunChanged as changed:
            return changed.run
        refuse(answer.replies, self.server, operation)
        return answer

    async def _current(self, values: Sequence[tuple[int, frames.Value]]) -> list[int]:
        """Return the places of the values whose own tags are all current."""
        names = self._bound
        tags = list(dict.fromkeys(tag for _, value in values for tag, _ in value.tags))
        answer = await self._call([(b"MGET", *map(names.tag, tags))], "read")
        tokens = _known(tags, answer.replies[0])
        return [
            place
            for place, (_, value) in enumerate(values)
            if all(tokens.get(tag) == token for tag, token in value.tags)
        ]

    async def _on_leases(
        self, script: Script, bases: Sequence[Basis], operation: str, *arguments: bytes
    ) -> Sequence[object]:
        """Run a script on the slot of each lease."""
        if not bases:
            return []
        names = self._bound
        answer = await self._call(
            [
                script.on(
                    (names.slot(basis.key),),
                    frames.identity(basis.token, basis.run[:SIZE]),
                    *arguments,
                )
                for basis in bases
            ],
            operation,
        )
        return answer.replies

    async def _fill(self, fills: Sequence[Fill], run: bytes) -> list[Filled]:
        names = self._bound
        writes: list[Command] = []
        lives: dict[bytes, bytes] = {names.generation: b"-1"}
        for fill, token in zip(fills, _fresh(len(fills)), strict=True):
            basis = fill.basis
            life = b"-1" if fill.ttl is None else _milliseconds(fill.ttl)
            value = frames.value(token, run, basis.run[SIZE:], dict(basis.tags), fill.payload)
            slot = names.slot(basis.key)
            writes.append(FILL.on((slot,), frames.identity(basis.token, run), value, life))
            for tag, _ in basis.tags:
                name = names.tag(tag)
                lives[name] = _longer(lives.get(name, life), life)
        extends = [TOKEN.on((name,), b"", life) for name, life in lives.items()]
        answer = await self._call_for(run, [*writes, *extends], "fill")
        if isinstance(answer, bytes):
            return [Filled.REFUSED] * len(fills)
        current = dict(zip(lives, answer.replies[len(writes) :], strict=True))
        return [
            _filled(
                reply,
                current[names.generation] == fill.basis.run[SIZE:]
                and all(current[names.tag(tag)] == token for tag, token in fill.basis.tags),
            )
            for fill, reply in zip(fills, answer.replies, strict=False)
        ]

    def _note_useless(self, slot: bytes, raw: bytes | None) -> None:
        """Remember a value that was found and is readable by nobody."""
        if raw is not None and frames.held(raw) is None:
            if len(self._useless) > _REMEMBERED:
                self._useless.clear()
            self._useless[slot] = raw[1 : 1 + 2 * SIZE]

    def _make(self, tags: Iterable[str], life: bytes) -> list[Command]:
        """Return the commands that make missing tokens: the generation's, then each tag's."""
        names = self._bound
        keys = [names.generation, *map(names.tag, tags)]
        lives = [b"-1", *([life] * (len(keys) - 1))]
        return [
            TOKEN.on((key,), token, life)
            for key, token, life in zip(keys, _fresh(len(keys)), lives, strict=True)
        ]

    async def _delete(self, keys: Sequence[bytes], events: Sequence[bytes], operation: str) -> None:
        if events:
            [fresh] = _fresh(1)
            script = publish(self._bound.stream, events, fresh=fresh, deleting=keys)
            await self._call([script], operation)
        elif keys:
            await self._call([(b"UNLINK", *keys)], operation)


def _stored(key: str, value: frames.Value, life: bytes) -> Stored:
    return Stored(value.payload, Basis(key, value.token, value.tags, life))


def _leased(reply: Sequence[Any]) -> Leased:
    """Read the answer for a slot that was left alone: its head, and the ms until it ends."""
    head, left = reply
    token = frames.held(head)
    return Leased(b"", 0.0) if token is None else Leased(token, max(left, 1) / 1000)


def _filled(reply: object, current: bool) -> Filled:
    """Read the answer to a fill; ``current`` says whether all tokens are what they were."""
    if reply == 2:
        return Filled.AWAITED if current else Filled.IN_VAIN
    return Filled.STORED if reply == 1 and current else Filled.REFUSED


def _known(tags: Iterable[str], tokens: Iterable[bytes | None]) -> dict[str, bytes]:
    return {tag: token for tag, token in zip(tags, tokens, strict=True) if token is not None}


def _fresh(count: int) -> list[bytes]:
    """Return random tokens; one call of the system for all of them."""
    noise = os.urandom(SIZE * count)
    return [noise[at : at + SIZE] for at in range(0, len(noise), SIZE)]


def _milliseconds(seconds: float) -> bytes:
    return b"%d" % max(1, round(seconds * 1000))


def _longer(one: bytes, other: bytes) -> bytes:
    return b"-1" if b"-1" in (one, other) else max(one, other, key=int)


def _positive(name: str, value: object, kind: Callable[[str], _Number]) -> _Number:
    try:
        number = kind(str(value))
    except ValueError:
        number = kind("0")
    if not 0 < number < float("inf"):
        raise PolicyError(f"{name} of a RedisTier is a positive number, not {value!r}")
    return number
