"""The safe codec: an exact round trip, typed by an annotation, or a refusal when written.

An annotation is compiled once into a `Plan` that checks a value and lowers it to plain wire values;
MessagePack makes bytes of those. The bytes begin with a digest of the annotation's shape (the names
and types of every field in it), so that what was written by another version of a class is refused
instead of being read into the wrong fields. Reading builds nothing but what the annotation names
and executes nothing: no constructor, no validator, no import by name.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, NoReturn

from tiercache.codec.safe.compiler import Compiler
from tiercache.codec.safe.dynamic import DYNAMIC, TooDeep, noted
from tiercache.codec.safe.plain import describes_itself
from tiercache.codec.safe.plan import Plan, Refused, locate
from tiercache.codec.safe.wide import pack, unpack
from tiercache.errors import CodecError

_DIGEST: Final = 8
_CHEAPER_COPIED: Final = 8192
"""Bytes up to which cutting the digest off by a copy takes less time than by a memoryview."""
_MAX_PLANS: Final = 4096
_WAY_OUT: Final = (
    "annotate the function's return type or pass type= so that it can be rebuilt, "
    'or use codec="pickle" with a secret'
)


_Known = tuple[bytes, Plan, bool]
"""Of one annotation: the digest of its shape, its plan, and whether its values need neither.

Those of ``Any`` do: what others would be written by is its own plan.
"""


class SafeCodec:
    """Keeps values exactly, or refuses them; never executes what it reads."""

    id = 1

    def __init__(self) -> None:
        self._plans: dict[Any, _Known] = {}
        self._unhashable: dict[int, tuple[Any, _Known]] = {}

    def encode(self, value: object, type_: Any = Any) -> bytes:
        """Return the value's bytes; `CodecError` names the path to what cannot be kept."""
        try:
            digest, plan, plain = self._plans[type_]
        except (KeyError, TypeError):
            digest, plan, plain = self._plan(type_)
        try:
            lowered = plan.lower(value)
            if plain:
                return _UNTYPED + pack(DYNAMIC.lower(value))
            return digest + pack(lowered)
        except (Refused, RecursionError) as error:
            _refuse(plan, value, error)

    def decode(self, data: bytes, type_: Any = Any) -> object:
        """Return the value; `CodecError` when the bytes are not one of the type.

        What was written without a type is read with one where it conforms to it.
        """
        try:
            digest, plan, _ = self._plans[type_]
        except (KeyError, TypeError):
            digest, plan, _ = self._plan(type_)
        found = data[:_DIGEST]
        if found != digest and found != _UNTYPED:
            raise CodecError(f"written for another shape than {plan.shape}", reason="type")
        try:
            whole = data if len(data) < _CHEAPER_COPIED else memoryview(data)
            wire = unpack(whole[_DIGEST:])
            if found == digest:
                return plan.lift(wire)
            value = DYNAMIC.lift(wire)
            plan.lower(value)
        except Exception as error:
            # Whatever a library says about bytes that anybody may have written, it says about them.
            raise CodecError(f"not the bytes of a {plan.shape}: {error}") from error
        return value

    def _plan(self, type_: Any) -> _Known:
        try:
            known = self._plans.get(type_)
        except TypeError:  # as `Annotated` is with something unhashable: known by identity
            held = self._unhashable.get(id(type_))
            known = held[1] if held else None
            if known is None:
                _bound(self._unhashable)
                known = _compile(type_)
                self._unhashable[id(type_)] = type_, known
            return known
        if known is None:
            _bound(self._plans)
            known = self._plans[type_] = _compile(type_)
        return known


def _bound(plans: dict[Any, Any]) -> None:
    """Forget all plans where there are more than a program has annotations: they hold classes."""
    if len(plans) >= _MAX_PLANS:
        plans.clear()


def _compile(type_: Any) -> _Known:
    compiler = Compiler()
    try:
        plan = compiler.plan(type_)
        plain = plan is not DYNAMIC and describes_itself(type_)
        return _digest(compiler.shape(plan)), plan, plain
    except Exception as error:  # noqa: BLE001  # reading annotations runs what stands in them
        plan = noted(f"its annotation cannot be used: {error!r:.200}")
        return _digest(plan.shape), plan, False


def _digest(shape: str) -> bytes:
    return hashlib.blake2b(shape.encode("utf-8", "surrogatepass"), digest_size=_DIGEST).digest()


_UNTYPED: Final = _digest(DYNAMIC.shape)


def _refuse(plan: Plan, value: object, error: Refused | RecursionError) -> NoReturn:
    if isinstance(error, RecursionError):
        raise CodecError("value: nested too deeply, or contains itself") from error
    if isinstance(error, TooDeep):
        raise CodecError(f"value: {error}") from error
    path, refusal = locate(plan, value, error)
    raise CodecError(f"value{path}: {refusal}; {_WAY_OUT}") from error
