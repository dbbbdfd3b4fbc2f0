"""Hostile and random input: a value of the type, or a refusal, and nothing else."""

from __future__ import annotations

import string
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ids import shown
from tests.tiercache.codec import records as r
from tests.tiercache.codec.same import same
from tiercache.codec.safe import SafeCodec
from tiercache.errors import CodecError

CODEC = SafeCodec()
ZONES = st.sampled_from(
    [None, UTC, ZoneInfo("Europe/Rome"), ZoneInfo("America/New_York"), timezone(timedelta(hours=3))]
)
MOMENTS = st.builds(
    lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
    st.datetimes(),
    ZONES,
    st.integers(0, 1),
)
TEXTS = st.text(st.characters(exclude_categories=())) | st.text(string.printable)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.floats()
    | TEXTS
    | st.binary()
    | MOMENTS
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
HASHABLE = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=8,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.sets(HASHABLE, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.dictionaries(TEXTS, inner, max_size=4)
        | st.lists(st.fixed_dictionaries({"a": inner, "b": inner}), max_size=4)
    ),
    max_leaves=20,
)
USERS = st.builds(r.User, st.integers(), TEXTS, MOMENTS, st.none() | st.floats())
POINTS = st.builds(r.Point, st.integers(), st.integers() | st.booleans())
NODES = st.recursive(
    st.builds(r.Node, TEXTS),
    lambda inner: st.builds(r.Node, TEXTS, st.lists(inner, max_size=3), st.none() | inner),
    max_leaves=10,
)
ROWS = st.fixed_dictionaries({"id": st.integers()}, optional={"when": MOMENTS})
TYPED: dict[str, tuple[Any, Any]] = {
    "users": (list[r.User], st.lists(USERS, max_size=4)),
    "node": (r.Node, NODES),
    "rows": (list[r.Row], st.lists(ROWS, max_size=4)),
    "either": (
        list[r.User | r.Point | int | list[int] | list[str] | None],
        st.lists(
            USERS | POINTS | st.integers() | st.none() | st.lists(st.integers()) | st.lists(TEXTS)
        ),
    ),
    "mapping": (
        dict[r.Point, tuple[date, time, timedelta] | None],
        st.dictionaries(POINTS, st.none() | st.tuples(st.dates(), st.times(), st.timedeltas())),
    ),
    "sets": (
        set[frozenset[tuple[int, ...]]],
        st.sets(st.frozensets(st.lists(st.integers()).map(tuple))),
    ),
    "choices": (
        dict[r.Color, list[r.Access]],
        st.dictionaries(
            st.sampled_from(r.Color), st.lists(st.integers(0, 3).map(r.Access)), max_size=2
        ),
    ),
    "model": (
        list[r.Item],
        st.lists(
            st.builds(
                lambda name, at, tags: r.Item(name=name, at=at, tags=tags),
                st.text(),
                st.datetimes(),
                st.sets(st.text()),
            ),
            max_size=3,
        ),
    ),
    "any": (Any, VALUES),
}
EACH = pytest.mark.parametrize(("type_", "values"), TYPED.values(), ids=TYPED)


@EACH
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_every_value_comes_back(type_: Any, values: Any, data: st.DataObject) -> None:
    """Any value of the type comes back equal and of the same types."""
    value = data.draw(values)
    back = CODEC.decode(SafeCodec().encode(value, type_), type_)
    assert same(back, value)


@EACH
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_damaged_bytes_are_refused_or_a_value_of_the_type(
    type_: Any, values: Any, data: st.DataObject
) -> None:
    """Bytes changed, cut or inserted give a refusal, or something that could have been written."""
    payload = bytearray(CODEC.encode(data.draw(values), type_))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(8, len(payload)))
        payload[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        value = CODEC.decode(bytes(payload), type_)
    except CodecError:
        return
    CODEC.encode(value, type_)


WIRE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 20)
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=16)
    | st.sampled_from(["2026-01-01", "2026-01-01T00:00:00Z", "=1,2,3", "~5", "~x", "../..", "UTC"])
    | st.integers(-5, 5).flatmap(
        lambda code: st.binary(max_size=5).map(lambda data: msgspec.msgpack.Ext(code, data))
    ),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=15,
)


@EACH
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_well_formed_nonsense_is_refused_or_a_value_of_the_type(
    type_: Any, values: Any, data: st.DataObject
) -> None:
    """Valid MessagePack that no value gives is a refusal, or read as what could be written."""
    digest = CODEC.encode(data.draw(values), type_)[:8]
    try:
        value = CODEC.decode(digest + msgspec.msgpack.encode(data.draw(WIRE)), type_)
    except CodecError:
        return
    CODEC.encode(value, type_)


@EACH
@given(data=st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_random_bytes_are_refused(type_: Any, values: Any, data: bytes) -> None:
    """Bytes that are nothing are a refusal."""
    del values
    try:
        value = CODEC.decode(data, type_)
    except CodecError:
        return
    CODEC.encode(value, type_)


@pytest.mark.parametrize("type_", [Any, r.Node, list[Any]], ids=shown)
@pytest.mark.parametrize(
    "body",
    [
        b"\x91" * 1_000_000,
        b"\x92\x00" * 1_000_000,
        b"\x81\xa0" * 1_000_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdd\x7f\xff\xff\xff" * 1000,
        b"\xdf\xff\xff\xff\xff\xa0",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xc7\xff\x03" * 1000,
    ],
    ids=lambda body: f"{body[:6].hex()}*{len(body)}",
)
def test_nesting_and_lengths_of_an_attacker_are_refused(type_: Any, body: bytes) -> None:
    """Nesting without end and lengths without bytes are a refusal, not a crash."""
    digest = CODEC._plan(type_)[0]
    with pytest.raises(CodecError):
        CODEC.decode(digest + body, type_)


FORGED: list[tuple[Any, Any]] = [
    (int, "text"),
    (list[int], [1, "text"]),
    (list[int], {"a": 1}),
    (tuple[int, str], [1]),
    (tuple[int, str], [1, "a", 2]),
    (dict[str, int], {"a": "b"}),
    (dict[str, int], {1: 1}),
    (dict[int, r.Point], [[1], [[1, 2], [3, 4]]]),
    (dict[int, r.Point], [[1, 2], [[1], [3]]]),
    (set[frozenset[int]], [1]),
    (r.Point, [1]),
    (r.Point, [1, 2, 3]),
    (r.Point, [1, "2"]),
    (list[r.Point], [[1], [2, 3]]),
    (list[r.Point], [[1, 2], [3]]),
    (list[r.Point], [[1]]),
    (list[r.Pair], [[1, 2], [0, [None], []]]),
    (r.Row, {"when": "2026-01-01T00:00:00"}),
    (r.Row, {"id": 1, "other": 2}),
    (list[r.Row], [["id"], [[1], [2]]]),
    (list[r.Row], [["other"], [[1]]]),
    (list[r.Row], [[], []]),
    (list[r.Row], [["id", 1], [[1], [2]]]),
    (r.Color, "r"),
    (r.Color, ["RED"]),
    (r.Access, "READ"),
    (r.Access, 64),
    (r.Access, -1),
    (r.Leave, 4),
    (r.Rank, 4),
    (Literal["a", "b"], 2),
    (Literal["a", "b"], -1),
    (Literal["a", "b"], True),
    (r.Point | r.User, [2, []]),
    (r.Point | r.User, [-1, [1, 2]]),
    (r.Point | r.User, [True, [1, 2]]),
    (list[r.Point | None], [[0, 0], [], [[1], [2]]]),
    (list[r.Point | None], [[0], [None], [[1], [2]]]),
    (list[r.Point | None], [0, [None], [[1], [2]]]),
    (list[r.Point | None], [[0], ["text"], [[1], [2]]]),
    (list[r.Point | None], [[5], [], [[1], [2]]]),
    (datetime, "2026-01-01T00:00:00+01:00"),
    (datetime, ["2026-01-01", 2, None]),
    (datetime, ["2026-01-01", 0, "../../etc/passwd"]),
    (datetime, ["2026-01-01", 0, "=9999999,0,0"]),
    (datetime, ["2026-01-01", 0, ["UTC"]]),
    (time, ["01:00+01:00", 0, None]),
    (date, 10**10),
    (timedelta, [1, 2, 3.5]),
    (complex, [1, 2]),
    (Decimal, "one"),
    (Decimal, 1.5),
    (UUID, b"short"),
    (bytearray, 10**9),
    (r.Numbers, [[[[1]]], [["other"]], [0, None], [0, None]]),
    (r.Numbers, [[[["text"]]], [None], [0, None], [0, None]]),
    (r.Numbers, [[[[1]]], [None], [0, 1], [0, None]]),
    (r.Numbers, []),
    (Any, []),
    (Any, [True]),
    (Any, [99, 1]),
    (Any, [4, 1]),
    (Any, [2, [0]]),
    (Any, [4, [0], 1]),
    (Any, [13, ["a"], [0, 1], [0, 2]]),
    (Any, [13, ["a", "b"], [0, 1], [0, 2, 3]]),
    (Any, [13, [1], [0, 1]]),
    (Any, [13, [], []]),
    (Any, {1: 1}),
    (Any, [5, "2026-01-01T00:00:00Z"]),
    (Any, msgspec.msgpack.Ext(9, b"")),
    (Any, msgspec.msgpack.Ext(3, b"\x91\x01")),
    (Any, msgspec.msgpack.Ext(2, b"\xff")),
]


@pytest.mark.parametrize(("type_", "wire"), FORGED, ids=lambda one: shown(one)[:50])
def test_what_no_value_of_the_type_gives_is_refused(type_: Any, wire: Any) -> None:
    """A well-formed wire value of another type, length or range builds nothing."""
    with pytest.raises(CodecError) as refusal:
        CODEC.decode(CODEC._plan(type_)[0] + msgspec.msgpack.encode(wire), type_)
    assert refusal.value.reason == "value"


def test_a_date_and_a_datetime_are_not_confused() -> None:
    """A datetime at midnight stays one where a date is annotated."""
    midnight = datetime(2026, 1, 1)
    assert same(CODEC.decode(CODEC.encode(midnight, date), date), midnight)
