"""The codec protocol: a value to bytes and back, exactly, or a refusal."""

from __future__ import annotations

from typing import Any, Protocol


class Codec(Protocol):
    """Turns values into bytes. ``type_`` is the annotation that says what to build, or `Any`.

    What ``encode`` accepts, ``decode`` gives back equal and of the same types; everything else is
    a `CodecError` when written, never a surprise when read.
    """

    @property
    def id(self) -> int:
        """The byte that names this codec in a stored frame, 1 to 255; users' own start at 128."""
        ...

    def encode(self, value: object, type_: Any) -> bytes:
        """Return the value's bytes; `CodecError` names the path to what cannot be kept."""
        ...

    def decode(self, data: bytes, type_: Any) -> object:
        """Return the value; `CodecError` when the bytes are not one of the type."""
        ...
