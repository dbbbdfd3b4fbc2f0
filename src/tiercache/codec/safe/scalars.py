"""Values without an inside: what is its own wire form, and the small types of the standard library.

A datetime in UTC is its own wire form (MessagePack's timestamp), and so is a naive one, except that
it comes back as its text. Any other is ``[naive, fold, zone]``, where a zone is None, the name of a
ZoneInfo, ``=days,seconds,microseconds,name`` for a fixed offset or ``~seconds`` for pydantic's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from tiercache.codec.safe.plan import Plan, Refused, as_list, mismatch, native

NATIVE: Final = frozenset({type(None), bool, int, float, str, bytes})

NONE: Final = native("None", type(None))
_DATETIME: Final = frozenset({datetime})

# What a type checker lets through for `int` and `float` is taken too, and comes back as it was.
NATIVES: Final[dict[type, Plan]] = {
    type(None): NONE,
    bool: native("bool", bool),
    int: native("int", int, bool),
    float: native("float", float, int, bool),
    str: native("str", str),
    bytes: native("bytes", bytes),
}


class Scalar(NamedTuple):
    """A type that has a wire form of its own, under ``code`` where no annotation announces it."""

    code: int
    type: type
    lower: Callable[[Any], Any]
    lift: Callable[[Any], Any]
    lift_all: Callable[[Any], list[Any]] | None = None


def _lower_zone(zone: tzinfo | None) -> str | None:
    if zone is None:
        return None
    kind = type(zone)
    if kind is timezone:
        return _offset_text(*zone.__getinitargs__())  # type: ignore[attr-defined]
    if isinstance(zone, ZoneInfo) and kind is ZoneInfo:
        if zone.key is None:
            raise Refused("a ZoneInfo without a name cannot be found again")
        return zone.key
    # pydantic is not imported here: a zone of its own means that it is.
    if (core := sys.modules.get("pydantic_core")) and kind is core.TzInfo:
        offset = zone.utcoffset(None)
        assert offset is not None
        return f"~{int(offset.total_seconds())}"
    raise Refused(f"its time zone is a {kind.__module__}.{kind.__qualname__}; use zoneinfo")


@lru_cache(maxsize=128)
def _offset_text(offset: timedelta, *name: str) -> str:
    return "=" + ",".join((f"{offset.days},{offset.seconds},{offset.microseconds}", *name))


@lru_cache(maxsize=128)
def _lift_zone(text: str | None) -> tzinfo | None:
    if text is None:
        return None
    if text[:1] == "=":
        days, seconds, microseconds, *name = text[1:].split(",", 3)
        return timezone(timedelta(int(days), int(seconds), int(microseconds)), *name)
    if text[:1] == "~":
        from pydantic_core import TzInfo

        return TzInfo(int(text[1:]))
    return ZoneInfo(text)


def _lower_datetime(value: Any) -> Any:
    if type(value) is not datetime:
        raise mismatch(value, "datetime")
    zone = value.tzinfo
    if (zone is UTC or zone is None) and not value.fold:
        return value
    return [value.replace(tzinfo=None), value.fold, _lower_zone(zone)]


def _lift_datetime(wire: Any) -> datetime:
    kind = type(wire)
    if kind is datetime:
        return wire  # type: ignore[no-any-return]
    if kind is str:
        return _lift_naive(wire)
    text, fold, zone = as_list(wire)
    return _lift_naive(text).replace(tzinfo=_lift_zone(zone), fold=fold)


def _lift_datetimes(wire: Any) -> list[Any]:
    if _DATETIME.issuperset(map(type, as_list(wire))):
        return wire  # type: ignore[no-any-return]  # as_list saw that it is a list
    return list(map(_lift_datetime, wire))


def _lift_naive(text: Any) -> datetime:
    value = datetime.fromisoformat(text)
    if value.tzinfo is not None:
        raise Refused("a zone inside the text of a datetime")
    return value


def _lower_date(value: Any) -> Any:
    # A datetime is a date, to a type checker: it comes back as the datetime it was.
    return value.toordinal() if type(value) is date else _lower_datetime(value)


def _lift_date(wire: Any) -> date:
    return date.fromordinal(wire) if type(wire) is int else _lift_datetime(wire)


def _lower_time(value: Any) -> Any:
    if type(value) is not time:
        raise mismatch(value, "time")
    return [value.replace(tzinfo=None).isoformat(), value.fold, _lower_zone(value.tzinfo)]


def _lift_time(wire: Any) -> time:
    text, fold, zone = as_list(wire)
    value = time.fromisoformat(text)
    if value.tzinfo is not None:
        raise Refused("a zone inside the text of a time")
    return value.replace(tzinfo=_lift_zone(zone), fold=fold)


def _lower_timedelta(value: Any) -> Any:
    if type(value) is not timedelta:
        raise mismatch(value, "timedelta")
    return [value.days, value.seconds, value.microseconds]


def _lift_timedelta(wire: Any) -> timedelta:
    days, seconds, microseconds = as_list(wire)
    if not {int}.issuperset(map(type, wire)):
        raise Refused("a timedelta of something else than whole numbers")
    return timedelta(days, seconds, microseconds)


def _exactly(kind: type, lower: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def checked(value: Any) -> Any:
        if type(value) is not kind:
            raise mismatch(value, kind.__name__)
        return lower(value)

    return checked


def _lift_decimal(wire: Any) -> Decimal:
    if type(wire) is not str:
        raise mismatch(wire, "the text of a Decimal")
    return Decimal(wire)


def _lift_uuid(wire: Any) -> UUID:
    return UUID(bytes=wire)


def _lift_bytearray(wire: Any) -> bytearray:
    if type(wire) is not bytes:
        raise mismatch(wire, "the bytes of a bytearray")
    return bytearray(wire)


def _lift_complex(wire: Any) -> complex:
    real, imaginary = as_list(wire)
    if not {float}.issuperset(map(type, wire)):
        raise Refused("a complex of something else than floats")
    return complex(real, imaginary)


_SCALARS: Final = (
    Scalar(5, datetime, _lower_datetime, _lift_datetime, _lift_datetimes),
    Scalar(6, date, _lower_date, _lift_date),
    Scalar(7, time, _lower_time, _lift_time),
    Scalar(8, timedelta, _lower_timedelta, _lift_timedelta),
    Scalar(9, Decimal, _exactly(Decimal, str), _lift_decimal),
    Scalar(10, UUID, _exactly(UUID, lambda value: value.bytes), _lift_uuid),
    Scalar(11, bytearray, _exactly(bytearray, bytes), _lift_bytearray),
    Scalar(12, complex, _exactly(complex, lambda value: [value.real, value.imag]), _lift_complex),
)

SCALARS: Final = {scalar.type: scalar for scalar in _SCALARS}
SCALARS_BY_CODE: Final = {scalar.code: scalar for scalar in _SCALARS}

SCALAR_PLANS: Final = {
    scalar.type: Plan(
        scalar.type.__name__,
        scalar.lower,
        scalar.lift,
        types=frozenset({date, datetime} if scalar.type is date else {scalar.type}),
        lift_all=scalar.lift_all,
    )
    for scalar in _SCALARS
}
