"""What is asked of the tier, as jobs for a database: from and to the types of `tiers.base`."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from tiercache._sql.names import RUN, fold
from tiercache._sql.program import (
    Dialect,
    Held,
    Job,
    Lease,
    Need,
    Program,
    Question,
    Replacement,
    Row,
    Statement,
    Value,
)
from tiercache.tiers.base import Ask, Basis, Fill, Filled, Leased, Stored

_CENTURY: Final = 3.2e9
"""Seconds; a longer ttl is no end at all, and past the calendar of a database."""


class Requests:
    """The operations of one namespace as jobs; the same for every way of running them."""

    def __init__(self, dialect: Dialect, namespace: str) -> None:
        self._dialect = dialect
        self._namespace = fold(namespace)

    def read(self, asks: Sequence[Ask]) -> Question[list[Stored | None]]:
        """As `Operations.read`: one statement, whatever is asked; at least one thing has to be."""
        if len(asks) == 1:
            [ask] = asks
            folded = fold(ask.key)
            if ask.tags is None or ask.tags:
                reading = self._dialect.read(self._namespace, [folded])
                return reading, lambda rows: [_stored(ask, rows[0]) if rows else None]
            reading = self._dialect.read(self._namespace, [folded], True)
            return reading, lambda rows: [_plain(ask.key, *rows[0]) if rows else None]
        keys = [fold(ask.key) for ask in asks]
        names = dict(zip(keys, (ask.key for ask in asks), strict=True))
        if any(ask.tags is None or ask.tags for ask in asks):
            reading = self._dialect.read(self._namespace, list(names))
            return reading, lambda rows: _all_stored(asks, keys, rows)
        reading = self._dialect.read(self._namespace, list(names), True)
        return reading, lambda rows: _all_plain(names, keys, rows)

    def lease(self, asks: Sequence[Ask], ttl: float, patient: bool) -> Job[list[Basis | Leased]]:
        """As `Operations.lease`."""
        return Job("lease", lambda: self._lease(asks, ttl, patient), Need.WRITE, several=True)

    def renew(self, bases: Sequence[Basis], ttl: float) -> Job[list[bool]]:
        """As `Operations.renew`."""
        return Job("renew", lambda: self._renew(bases, ttl), Need.WRITE)

    def release(self, bases: Sequence[Basis]) -> Job[list[bool]]:
        """As `Operations.release`."""
        return Job("release", lambda: self._release(bases), Need.WRITE)

    def fill(self, fills: Sequence[Fill]) -> Job[list[Filled]]:
        """As `Operations.fill`; refused also where the run or a tag's token is not current."""
        several = len(fills) > 1 or any(fill.basis.tags for fill in fills)
        return Job("fill", lambda: self._fill(fills), Need.WRITE, several=several)

    def invalidate(
        self, keys: Sequence[str], tags: Sequence[str], announced: Sequence[Statement] = ()
    ) -> Job[None]:
        """As `Operations.invalidate`; ``announced`` publishes events in the same transaction."""
        return Job(
            "invalidate",
            lambda: self._invalidate(keys, tags, announced),
            Need.DURABLE,
            several=bool(keys and tags),
            atomic=bool(announced),
        )

    def clear(self, announced: Sequence[Statement] = ()) -> Job[None]:
        """As `Operations.clear`: one row goes; entries of the old run stay until they are swept."""
        return Job(
            "clear",
            lambda: self._invalidate((), (), announced, run=True),
            Need.DURABLE,
            atomic=bool(announced),
        )

    def _lease(
        self, asks: Sequence[Ask], ttl: float, patient: bool
    ) -> Program[list[Basis | Leased]]:
        if not asks:
            return []
        held = {fold(ask.key): _token() for ask in asks}
        leases = [Lease(key, token) for key, token in sorted(held.items())]
        fresh = _fresh(tag for ask in asks for tag in ask.tags or ())
        seen = [ask.seen.hex() for ask in asks if ask.seen] if patient else None
        tokens, taken = yield from self._dialect.lease(self._namespace, fresh, leases, ttl, seen)
        others: dict[str, Held] = {}
        left = [key for key in sorted(held) if key not in taken] if patient else []
        if left:
            others = {key: Held(key, "", 0.0) for key in left}
            marked = yield from self._dialect.await_leases(self._namespace, left)
            others |= {each.key: each for each in marked}
        return [
            _leased(others[key])
            if (key := fold(ask.key)) in others
            else Basis(
                ask.key,
                bytes.fromhex(held[key]),
                tuple((tag, bytes.fromhex(tokens[fold(tag)])) for tag in ask.tags or ()),
                bytes.fromhex(tokens[RUN]),
            )
            for ask in asks
        ]

    def _renew(self, bases: Sequence[Basis], ttl: float) -> Program[list[bool]]:
        if not bases:
            return []
        alive = yield from self._dialect.renew(self._namespace, _leases(bases), ttl)
        return [basis.token.hex() in alive for basis in bases]

    def _release(self, bases: Sequence[Basis]) -> Program[list[bool]]:
        if not bases:
            return []
        awaited = yield from self._dialect.release(self._namespace, _leases(bases))
        return [basis.token.hex() in awaited for basis in bases]

    def _fill(self, fills: Sequence[Fill]) -> Program[list[Filled]]:
        if not fills:
            return []
        replacements = [_replacement(fill) for fill in fills]
        # Two results upon one basis: the first is as good as the other.
        distinct = {(each.value.key, each.held): each for each in reversed(replacements)}
        tags = {fold(tag) for fill in fills for tag, _ in fill.basis.tags}
        done = yield from self._dialect.fill(
            self._namespace, sorted(tags), [each for _, each in sorted(distinct.items())]
        )
        return [_filled(done.get(each.value.token)) for each in replacements]

    def _invalidate(
        self,
        keys: Sequence[str],
        tags: Sequence[str],
        announced: Sequence[Statement],
        *,
        run: bool = False,
    ) -> Program[None]:
        folded = sorted({*map(fold, tags), *([RUN] if run else [])})
        if keys:
            yield from self._dialect.delete_keys(self._namespace, sorted(set(map(fold, keys))))
        if folded:
            yield from self._dialect.delete_tags(self._namespace, folded)
        for statement in announced:  # noqa: UP028 - a list cannot be sent the rows
            yield statement


def _leases(bases: Iterable[Basis]) -> list[Lease]:
    """Return the leases that these stand for, sorted and distinct."""
    return sorted({Lease(fold(basis.key), basis.token.hex()) for basis in bases})


def _leased(held: Held) -> Leased:
    """Return the answer for a slot that was left alone."""
    return Leased(bytes.fromhex(held.token), held.remaining)


def _filled(awaited: bool | None) -> Filled:
    """Return what became of a fill; None is what was not stored."""
    if awaited is None:
        return Filled.REFUSED
    return Filled.AWAITED if awaited else Filled.STORED


def _token() -> str:
    return secrets.token_hex(16)


def _fresh(tags: Iterable[str]) -> dict[str, str]:
    """Return a token that each tag may take if it has none, and one for the run."""
    return {tag: _token() for tag in sorted({RUN, *map(fold, tags)})}


def _replacement(fill: Fill) -> Replacement:
    """Return the value of a fill with what it may replace."""
    basis = fill.basis
    tags = [(tag, token.hex()) for tag, token in basis.tags]
    value = _value(basis.key, basis.run.hex(), tags, fill.payload, fill.ttl)
    return Replacement(basis.token.hex(), value)


def _value(
    key: str, run: str, tags: Sequence[tuple[str, str]], payload: bytes, ttl: float | None
) -> Value:
    """Return what is written; a tag that had to be folded takes its name along."""
    tokens = {fold(tag): token for tag, token in tags}
    names = {folded: tag for tag, _ in tags if (folded := fold(tag)) != tag}
    return Value(
        fold(key),
        _token(),
        run,
        json.dumps(tokens),
        json.dumps(names) if names else None,
        payload,
        None if ttl is None or ttl > _CENTURY else ttl,
    )


def _plain(key: str, token: str, run: str, payload: bytes) -> Stored:
    """Return the answer that a row without tags is."""
    return Stored(payload, Basis(key, bytes.fromhex(token), (), bytes.fromhex(run)))


def _all_plain(
    names: Mapping[str, str], keys: Sequence[str], rows: Sequence[Row]
) -> list[Stored | None]:
    """Return the answers to asks for values without tags; ``names`` are the keys unfolded."""
    found: dict[str, Stored] = {}
    current = b""
    for token, run, payload, key in rows:
        current = current or bytes.fromhex(run)  # it is that of them all, or they were not found
        found[key] = Stored(payload, Basis(names[key], bytes.fromhex(token), (), current))
    return [found.get(key) for key in keys]


def _all_stored(
    asks: Sequence[Ask], keys: Sequence[str], rows: Sequence[Row]
) -> list[Stored | None]:
    """Return the answers to asks of any kind; ``keys`` are theirs, folded."""
    found = {row[3]: row for row in rows}
    return [
        None if (row := found.get(key)) is None else _stored(ask, row)
        for ask, key in zip(asks, keys, strict=True)
    ]


def _stored(ask: Ask, row: Row) -> Stored | None:
    """Return the answer to one ask: nothing if its tags are not those that are stored."""
    token, run, payload, _, written, folded = row
    if written == "{}" and not ask.tags:
        return _plain(ask.key, token, run, payload)
    tokens = json.loads(written)
    if ask.tags is None:
        names = json.loads(folded) if folded else {}
        tags = [(names.get(tag, tag), token) for tag, token in tokens.items()]
    else:
        if {fold(tag) for tag in ask.tags} != tokens.keys():
            return None
        tags = [(tag, tokens[fold(tag)]) for tag in ask.tags]
    basis = Basis(
        ask.key,
        bytes.fromhex(token),
        tuple((tag, bytes.fromhex(token)) for tag, token in tags),
        bytes.fromhex(run),
    )
    return Stored(payload, basis)
