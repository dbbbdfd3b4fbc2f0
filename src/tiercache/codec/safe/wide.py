"""What MessagePack has no word for: integers beyond 64 bits, text with lone surrogates.

Both are rare, so nobody looks for them before the encoder has failed. Then they go into extension
types, which the decoder turns back before any plan sees them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec.msgpack import Decoder, Encoder, Ext

_INT: Final = 1
_STR: Final = 2
_MAP: Final = 3
"""A map one of whose keys needs an extension, as the list of its keys and values in turn."""


def pack(wire: Any) -> bytes:
    """Return the bytes of a wire value."""
    try:
        return _encode(wire)
    except (OverflowError, UnicodeEncodeError):
        return _encode(_widen(wire))


def _widen(wire: Any) -> Any:
    kind = type(wire)
    if kind is int:
        if -(1 << 63) <= wire < 1 << 64:
            return wire
        return Ext(_INT, wire.to_bytes(wire.bit_length() // 8 + 1, "big", signed=True))
    if kind is str:
        return wire if _is_text(wire) else Ext(_STR, wire.encode("utf-8", "surrogatepass"))
    if kind is dict:
        if all(map(_is_text, wire)):
            return {key: _widen(item) for key, item in wire.items()}
        flat = [_widen(either) for pair in wire.items() for either in pair]
        return Ext(_MAP, _encode(flat))
    if kind in (list, tuple, set, frozenset):
        return [_widen(item) for item in wire]
    return wire


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _narrow(code: int, data: memoryview) -> Any:
    if code == _INT:
        return int.from_bytes(data, "big", signed=True)
    if code == _STR:
        return str(data, "utf-8", "surrogatepass")
    if code == _MAP:
        flat = unpack(data)
        return dict(zip(flat[::2], flat[1::2], strict=True))
    raise ValueError(f"no extension {code}")


_encode: Final = Encoder().encode
unpack: Final[Callable[[bytes | memoryview], Any]] = Decoder(ext_hook=_narrow).decode
"""Return the wire value of some bytes; raises whatever msgspec or an extension raises."""
