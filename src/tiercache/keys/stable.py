"""The canonical text of a value: equal in every process, different for different values.

The text of a value can be read back from left to right, which is why two values never share one:

========================  ======================================================================
None, bool                ``None`` ``True`` ``False``
int                       ``i42``; ``x`` and hexadecimal digits for a big one
float, complex            ``f1.5`` ``f-0.0`` ``fnan``, ``c1.0/2.0``
str                       ``s3:bob``, with the number of characters; ``S`` and UTF-8 in hexadecimal
                          for what a database cannot hold (NUL, lone surrogates)
bytes, bytearray          ``b:`` or ``bytearray:`` and hexadecimal digits
list, tuple               ``[…,…]`` ``(…,…)``
set, frozenset            ``e{…,…}`` ``z{…,…}``, sorted by the text of the elements
dict                      ``d{key=value,…}``, sorted by the text of the keys
standard library          ``decimal:1.00`` ``uuid:…`` ``date:…`` ``datetime:…``, ranges, paths, …
``__cache_key__``         ``k``, its class, and the text of what it gives
Enum                      ``m``, its class and its name (a Flag: its number)
dataclass, NamedTuple     ``o`` or ``n``, its class, and all its fields with their names
subclass of the above     ``u``, its class, and the text it has as its base
class, function           ``t`` and its name, where importing that name gives this very object
========================  ======================================================================

A class is called ``module:qualname``: those that a function makes anew at every call count as one.
What an object knows besides (an attribute that is no field) would be lost, so it is refused.
"""

from __future__ import annotations

import enum
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import cached_property
from types import BuiltinFunctionType, CoroutineType, FunctionType
from typing import Any, Final

from tiercache.errors import KeyTemplateError
from tiercache.keys.identity import class_identity, function_identity
from tiercache.keys.scalars import SCALARS, encoder_of, text_of_int, text_of_str


def stable_text(value: object, *, where: str, argument: str) -> str:
    """Return the canonical text of a value.

    ``where`` (the function) and ``argument`` are named in the `KeyTemplateError` that refuses what
    has no such text: live things such as connections, requests and objects without a
    ``__cache_key__``, and containers that contain themselves.
    """
    encode = SCALARS.get(type(value))
    if encode is not None:
        return encode(value)
    walk = _Walk(where, argument)
    try:
        return walk.text(value)
    except RecursionError:
        raise walk.refusal("is nested too deep") from None


def digest(text: str) -> str:
    """Return 128 bits of BLAKE2b over a text, as 32 hexadecimal digits."""
    from hashlib import blake2b  # here, because most keys are short and hashlib loads OpenSSL

    return blake2b(text.encode(), digest_size=16).hexdigest()


def has_cache_key(value: object) -> bool:
    """Tell whether an object says itself what it is called, through ``__cache_key__``.

    That is an attribute, a property or a method, and gives any value with a stable text.
    """
    kind = type(value)
    # The class first: a property that fails must say why, not look as if it were missing.
    return not issubclass(kind, type) and (
        hasattr(kind, "__cache_key__") or hasattr(value, "__cache_key__")
    )


# What makes an instance of a subclass one of its base, past whatever the subclass overrides.
_PLAIN: Final[dict[type, Callable[[Any], object]]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    complex: complex.__complex__,
    bytes: lambda value: bytes(memoryview(value)),
    bytearray: lambda value: bytearray(memoryview(value)),
    list: lambda value: [*list.__iter__(value)],
    tuple: lambda value: (*tuple.__iter__(value),),
    set: lambda value: {*set.__iter__(value)},
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    dict: lambda value: dict(dict.items(value)),
}
_MADE_BY_A_CLASS_STATEMENT: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE


class _Walk:
    """One walk through a value that holds others, and knows on whose behalf it goes."""

    __slots__ = ("_argument", "_inside", "_where")

    def __init__(self, where: str, argument: str) -> None:
        self._where = where
        self._argument = argument
        self._inside: set[int] = set()

    def text(self, value: object) -> str:
        encode = encoder_of(type(value))
        if encode is not None:
            return encode(value)
        if id(value) in self._inside:
            raise self.refusal(f"{self._verb} {_kind(value)} and contains itself")
        self._inside.add(id(value))
        text = self._compound(value)
        self._inside.remove(id(value))
        return text

    def refusal(self, problem: str) -> KeyTemplateError:
        name = self._argument.lstrip("*")
        return KeyTemplateError(
            f"{self._where}: argument {self._argument!r} {problem}, so it has no stable text to "
            f'make a key of. Leave it out with ignore=("{name}",), name what matters with '
            f'key="...{{{name}.id}}", or give its class a __cache_key__'
        )

    @property
    def _verb(self) -> str:
        return "holds a value of type" if len(self._inside) > 1 else "is of type"

    def _compound(self, value: Any) -> str:
        kind = type(value)
        if kind is list:
            return f"[{self._each(value)}]"
        if kind is tuple:
            return f"({self._each(value)})"
        if kind is dict:
            pairs = [f"{self.text(key)}={self.text(item)}" for key, item in value.items()]
            return f"d{{{','.join(sorted(pairs))}}}"
        if kind is set or kind is frozenset:
            return f"{'e' if kind is set else 'z'}{{{','.join(sorted(map(self.text, value)))}}}"
        if issubclass(kind, type) or kind in (FunctionType, BuiltinFunctionType):
            return self._importable(value)
        return self._object(value, kind)

    def _each(self, values: Iterable[object]) -> str:
        return ",".join([self.text(value) for value in values])

    def _importable(self, value: Any) -> str:
        found: Any = sys.modules.get(value.__module__ or "builtins")
        for name in value.__qualname__.split("."):
            found = getattr(found, name, None)
        if found is not value:
            raise self.refusal(
                f"{self._verb} {_kind(value)}: importing {value.__qualname__!r} does not give it"
            )
        return f"t{text_of_str(function_identity(value))}"

    def _object(self, value: Any, kind: type) -> str:
        if has_cache_key(value):
            return f"k{_class(kind)}{self._own_key(value)}"
        if issubclass(kind, enum.Flag):
            return f"m{_class(kind)}{text_of_int(value._value_)}"
        if issubclass(kind, enum.Enum):
            return f"m{_class(kind)}{text_of_str(value._name_)}"
        if hasattr(kind, "__dataclass_fields__"):
            return f"o{_class(kind)}{self._dataclass(value, kind)}"
        base = _known_base(kind)
        if base is None:
            raise self.refusal(f"{self._verb} {_kind(value)}")
        self._refuse_more(value, base)
        if base is tuple and hasattr(kind, "_fields"):
            named = zip(kind._fields, tuple.__iter__(value), strict=True)
            return f"n{_class(kind)}({','.join([f'{name}={self.text(it)}' for name, it in named])})"
        return f"u{_class(kind)}{self._as_base(value, base)}"

    def _own_key(self, value: Any) -> str:
        key = value.__cache_key__
        if callable(key):
            key = key()
        if isinstance(key, CoroutineType):
            key.close()
            raise self.refusal(f"{self._verb} {_kind(value)}, whose __cache_key__ is async")
        return self.text(key)

    def _dataclass(self, value: Any, kind: type) -> str:
        names = [field.name for field in fields(value)]
        for base in kind.__mro__[:-1]:
            if not base.__flags__ & _MADE_BY_A_CLASS_STATEMENT:
                raise self.refusal(
                    f"{self._verb} {_kind(value)}, a dataclass and {base.__qualname__} in one"
                )
        self._refuse_more(value, object, names)
        known = [name for name in names if hasattr(value, name)]
        return f"({','.join([f'{name}={self.text(getattr(value, name))}' for name in known])})"

    def _as_base(self, value: Any, base: type) -> str:
        more = ""
        if isinstance(value, OrderedDict):
            more = f"[{self._each(value)}]"
        elif isinstance(value, defaultdict):
            more = f"({self.text(value.default_factory)})"
        if (plain := _PLAIN.get(base)) is not None:
            return f"{more}{self.text(plain(value))}"
        return SCALARS[base](value)

    def _refuse_more(self, value: object, base: type, known: Iterable[str] = ()) -> None:
        """Refuse an object that knows more than it does as its base and by its fields."""
        kind = type(value)
        more = {
            name
            for name in getattr(value, "__dict__", ())
            if not isinstance(getattr(kind, name, None), cached_property)
        }
        for above in kind.__mro__[: kind.__mro__.index(base)]:
            slots = above.__dict__.get("__slots__", ())
            more.update((slots,) if isinstance(slots, str) else slots)
        more -= {"__dict__", "__weakref__", *known}
        if more:
            raise self.refusal(
                f"{self._verb} {_kind(value)}, with more to it than its text would say "
                f"({', '.join(sorted(more))})"
            )


def _known_base(kind: type) -> type | None:
    for base in kind.__mro__[1:]:
        if base in _PLAIN or encoder_of(base) is not None:
            return base
    return None


def _class(kind: type) -> str:
    return text_of_str(class_identity(kind))


def _kind(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else class_identity(kind)
