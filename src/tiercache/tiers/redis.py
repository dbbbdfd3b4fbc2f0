"""The tier in Redis: one round trip for whatever is asked, safe against stale fills.

A read is one MGET of slots, tags and generation (a second one only for entries whose tags the
reader did not name and that carry some). A lease, a fill, a put and an invalidation are a pipeline
each; nothing is ever done by reading in Python and writing later without comparing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final, TypeVar

from tiercache._redis import frames
from tiercache._redis.address import Address
from tiercache._redis.frames import TOKEN as SIZE
from tiercache._redis.scripts import FILL, RELEASE, TOKEN
from tiercache._redis.server import Server, refuse
from tiercache._redis.stream import publish
from tiercache.errors import PolicyError, TierError
from tiercache.tiers.base import Ask, Basis, Fill, Kind, Put, Stored

if TYPE_CHECKING:
    from tiercache._redis.client import Answer
    from tiercache._redis.link import Command

_Number = TypeVar("_Number", int, float)
_ATTEMPTS: Final = 3
_REMEMBERED: Final = 4096


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
        self._tokens: dict[bytes, bytes] = {}

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
            return [None] * len(asks)
        tokens = _known(tags, found[len(slots) :])
        results: list[Stored | None] = []
        unnamed: list[tuple[int, frames.Value]] = []
        for ask, raw in zip(asks, found, strict=False):
            value = None
            if raw is not None:
                if ask.tags is None:
                    value = frames.parse(raw, answer.run, generation)
                    if value is not None and value.tags:
                        unnamed.append((len(results), value))
                        value = None
                elif all(tag in tokens for tag in ask.tags):
                    asked = {tag: tokens[tag] for tag in ask.tags}
                    value = frames.read(raw, answer.run, generation, asked)
            results.append(value and _stored(ask.key, value, answer.run, generation))
        if unnamed:
            for place in await self._current(unnamed):
                index, value = unnamed[place]
                results[index] = _stored(asks[index].key, value, answer.run, generation)
        return results

    async def lease(self, asks: Sequence[Ask], ttl: float) -> list[Basis]:
        """Put a fresh lease of ``ttl`` seconds in each slot and make missing tag tokens."""
        if not asks:
            return []
        names = self._bound
        tags = list(dict.fromkeys(tag for ask in asks for tag in ask.tags or ()))
        leases = _fresh(len(asks))
        life = _milliseconds(ttl)
        make = self._make(tags, life)
        run = await self.server.run("lease")
        for _ in range(_ATTEMPTS):
            sets: list[Command] = [
                (b"SET", names.slot(ask.key), frames.lease(token, run), b"PX", life)
                for ask, token in zip(asks, leases, strict=True)
            ]
            answer = await self._call_for(run, [*sets, *make], "lease")
            if isinstance(answer, bytes):
                run = answer
                continue
            generation, tokens = self._made(tags, answer.replies[len(sets) :])
            return [
                Basis(
                    ask.key,
                    token,
                    tuple((tag, tokens[tag]) for tag in dict.fromkeys(ask.tags or ())),
                    run + generation,
                )
                for ask, token in zip(asks, leases, strict=True)
            ]
        raise self._restless("lease")

    async def release(self, bases: Sequence[Basis]) -> None:
        """Empty each slot that still holds exactly this lease."""
        if bases:
            names = self._bound
            await self._call(
                [
                    RELEASE.on(
                        (names.slot(basis.key),), frames.lease(basis.token, basis.run[:SIZE])
                    )
                    for basis in bases
                ],
                "release",
            )

    async def fill(self, fills: Sequence[Fill]) -> list[bool]:
        """Replace each slot that still holds its basis and whose tags are still what they were.

        The ttl of its tags is extended with it. A basis from another life of the server is refused
        without asking.
        """
        results = [False] * len(fills)
        runs: dict[bytes, list[int]] = {}
        for index, fill in enumerate(fills):
            runs.setdefault(fill.basis.run[:SIZE], []).append(index)
        for run, places in runs.items():
            answers = await self._fill([fills[place] for place in places], run)
            for place, filled in zip(places, answers, strict=True):
                results[place] = filled
        return results

    async def put(self, puts: Sequence[Put]) -> None:
        """Replace each slot, whatever it holds.

        One round trip as long as the tokens of its tags are those this process saw last, else two:
        what the first one wrote with an outdated token is readable by nobody.
        """
        if not puts:
            return
        names = self._bound
        tags = list(dict.fromkeys(tag for put in puts for tag in put.tags))
        endless = any(put.ttl is None for put in puts)
        longest = b"-1" if endless else _milliseconds(max(put.ttl or 0.0 for put in puts))
        make = self._make(tags, longest)
        run = await self.server.run("put")
        generation = self._tokens.get(names.generation, b"")
        tokens = {tag: self._tokens.get(names.tag(tag), b"") for tag in tags}
        for _ in range(_ATTEMPTS):
            known = bool(generation) and all(tokens.values())
            sets = _sets(names, puts, run, generation, tokens) if known else []
            answer = await self._call_for(run, [*make, *sets], "put")
            if isinstance(answer, bytes):
                run = answer
                continue
            current = self._made(tags, answer.replies[: len(make)])
            if known and current == (generation, tokens):
                return
            generation, tokens = current
        raise self._restless("put")

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

    async def _fill(self, fills: Sequence[Fill], run: bytes) -> list[bool]:
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
            return [False] * len(fills)
        current = dict(zip(lives, answer.replies[len(writes) :], strict=True))
        return [
            reply == 1
            and current[names.generation] == fill.basis.run[SIZE:]
            and all(current[names.tag(tag)] == token for tag, token in fill.basis.tags)
            for fill, reply in zip(fills, answer.replies, strict=False)
        ]

    def _make(self, tags: Iterable[str], life: bytes) -> list[Command]:
        """Return the commands that make missing tokens: the generation's, then each tag's."""
        names = self._bound
        keys = [names.generation, *map(names.tag, tags)]
        lives = [b"-1", *([life] * (len(keys) - 1))]
        return [
            TOKEN.on((key,), token, life)
            for key, token, life in zip(keys, _fresh(len(keys)), lives, strict=True)
        ]

    def _made(
        self, tags: Sequence[str], replies: Sequence[bytes]
    ) -> tuple[bytes, dict[str, bytes]]:
        """Return the generation and the tags' tokens, and remember them for the next put."""
        names = self._bound
        if len(self._tokens) > _REMEMBERED:
            self._tokens.clear()
        self._tokens[names.generation] = replies[0]
        tokens = dict(zip(tags, replies[1:], strict=True))
        for tag, token in tokens.items():
            self._tokens[names.tag(tag)] = token
        return replies[0], tokens

    async def _delete(self, keys: Sequence[bytes], events: Sequence[bytes], operation: str) -> None:
        if events:
            [fresh] = _fresh(1)
            script = publish(self._bound.stream, events, fresh=fresh, deleting=keys)
            await self._call([script], operation)
        elif keys:
            await self._call([(b"UNLINK", *keys)], operation)

    def _restless(self, operation: str) -> TierError:
        return TierError(
            f"Redis at {self.server.address} answered as another server each time it was asked",
            tier="redis",
            operation=operation,
        )


def _stored(key: str, value: frames.Value, run: bytes, generation: bytes) -> Stored:
    return Stored(value.payload, Basis(key, value.token, value.tags, run + generation))


def _known(tags: Iterable[str], tokens: Iterable[bytes | None]) -> dict[str, bytes]:
    return {tag: token for tag, token in zip(tags, tokens, strict=True) if token is not None}


def _sets(
    names: frames.Names,
    puts: Sequence[Put],
    run: bytes,
    generation: bytes,
    tokens: Mapping[str, bytes],
) -> list[Command]:
    commands: list[Command] = []
    for put, token in zip(puts, _fresh(len(puts)), strict=True):
        tags = {tag: tokens[tag] for tag in put.tags}
        value = frames.value(token, run, generation, tags, put.payload)
        life = () if put.ttl is None else (b"PX", _milliseconds(put.ttl))
        commands.append((b"SET", names.slot(put.key), value, *life))
    return commands


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
