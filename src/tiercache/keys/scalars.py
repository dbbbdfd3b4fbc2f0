"""The canonical text of values that hold no other values.

Each text begins with a tag of its type and tells by itself where it ends, so that it can be read
back out of a longer one. The table is in the documentation of `tiercache.keys.stable`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import NoneType
from typing import Any, Final, TypeAlias

Encoder: TypeAlias = Callable[[Any], str]

_BIG: Final = 1 << 256  # from here on decimals get slow, and Python limits their number


def text_of_str(value: str) -> str:
    """Return ``s3:bob``, or hexadecimal digits for what a database could not hold."""
    if value.isascii() and "\0" not in value:
        return f"s{len(value)}:{value}"
    if is_writable(value):
        return f"s{len(value)}:{value}"
    return f"S{value.encode('utf-8', 'surrogatepass').hex()}"


def is_writable(text: str) -> bool:
    """Tell whether every tier can carry it: no NUL (PostgreSQL), no lone surrogate (UTF-8)."""
    if "\0" in text:
        return False
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return True


def text_of_int(value: int) -> str:
    """Return ``i42``, or hexadecimal digits for a big one."""
    return f"i{value}" if -_BIG < value < _BIG else f"x{value:x}"


def encoder_of(kind: type) -> Encoder | None:
    """Return what writes the instances of exactly this class, or None."""
    known = SCALARS.get(kind)
    if known is None and kind.__name__ in _LATE:
        module, late = _LATE[kind.__name__]
        if getattr(sys.modules.get(module), kind.__name__, None) is kind:
            known = SCALARS[kind] = late
    return known


def _zone(value: Any) -> str:
    """Name the time zone besides its offset: Berlin in winter is not UTC+1 for ever."""
    zone = value.tzinfo
    if zone is None:
        return ""
    name = getattr(zone, "key", None) or getattr(zone, "zone", None) or value.tzname()
    return f"@{text_of_str(f'{type(zone).__qualname__}/{name}')}"


def _moment(value: Any) -> str:
    return f"{value.isoformat()}{'~' if value.fold else ''}{_zone(value)}"


def _named(value: object) -> str:
    return f"{type(value).__name__.lower()}:{text_of_str(str(value))}"


SCALARS: Final[dict[type, Encoder]] = {
    str: text_of_str,
    int: text_of_int,
    bool: repr,
    NoneType: repr,
    float: lambda value: f"f{value!r}",
    complex: lambda value: f"c{value.real!r}/{value.imag!r}",
    bytes: lambda value: f"b:{value.hex()}",
    bytearray: lambda value: f"bytearray:{value.hex()}",
    range: lambda value: f"range:{value.start}/{value.stop}/{value.step}",
}
"""By exact class; `encoder_of` adds those of the standard library when it meets them."""

# By the name of the class, with the module that must know this very class under that name: a module
# that was not imported yet cannot have made the value, so none has to be imported here.
_LATE: Final[dict[str, tuple[str, Encoder]]] = {
    # The context changes one thing in the text of a Decimal: the case of its letters.
    "Decimal": ("decimal", lambda value: f"decimal:{str(value).upper()}"),
    "Fraction": (
        "fractions",
        lambda value: f"fraction:{text_of_int(value.numerator)}/{text_of_int(value.denominator)}",
    ),
    "UUID": ("uuid", lambda value: f"uuid:{value.hex}"),
    "date": ("datetime", lambda value: f"date:{value.isoformat()}"),
    "datetime": ("datetime", lambda value: f"datetime:{_moment(value)}"),
    "time": ("datetime", lambda value: f"time:{_moment(value)}"),
    "timedelta": (
        "datetime",
        lambda value: f"timedelta:{value.days}/{value.seconds}/{value.microseconds}",
    ),
    "PurePosixPath": ("pathlib", _named),
    "PosixPath": ("pathlib", _named),
    "PureWindowsPath": ("pathlib", _named),
    "WindowsPath": ("pathlib", _named),
    "IPv4Address": ("ipaddress", _named),
    "IPv6Address": ("ipaddress", _named),
    "IPv4Network": ("ipaddress", _named),
    "IPv6Network": ("ipaddress", _named),
    "IPv4Interface": ("ipaddress", _named),
    "IPv6Interface": ("ipaddress", _named),
}
