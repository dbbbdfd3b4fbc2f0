"""The frame around an encoded value: what it is, when it was made, whose it is, who signed it.

::

    "TC" version codec flags | created expires stale_until | len(key) len(body) size
    key body [mac]

``size`` is that of the body before compression. The MAC is HMAC-SHA-256 over everything before it,
with a key derived from the secret. Whether a frame must be signed is fixed by configuration, never
by the frame: with a secret an unsigned one is refused, without one a signed one is.
"""

from __future__ import annotations

import hmac
import struct
from typing import Final, NamedTuple

from tiercache.errors import CodecError, PolicyError

VERSION: Final = 1
MIN_SECRET: Final = 16
"""The shortest secret in bytes."""

_MAGIC: Final = b"TC" + bytes([VERSION])
_HEADER: Final = struct.Struct(">3sBB3dIQQ")
_SIZE: Final = _HEADER.size
_pack: Final = _HEADER.pack
_unpack: Final = _HEADER.unpack_from
_SIGNED: Final = 0x80
_ALGORITHM: Final = 0x0F
_UNKNOWN: Final = 0xFF & ~(_SIGNED | _ALGORITHM)
_MAC_SIZE: Final = 32

Fields = tuple[int, int, float, float, float, int, bytes]
"""Those of a `Frame` in a plain tuple, which is made and taken apart in a tenth of the time."""


class Frame(NamedTuple):
    """What a frame holds. ``algorithm`` is how the body is compressed, 0 for not at all."""

    codec: int
    algorithm: int
    created: float
    expires: float
    stale_until: float
    size: int
    body: bytes


def mac_key(secret: str | bytes) -> bytes:
    """Return the key that signs frames; `PolicyError` for a secret that is too short.

    Derived, so that the same secret used elsewhere never signs anything that is a frame here.
    """
    raw = secret.encode() if isinstance(secret, str) else bytes(secret)
    if len(raw) < MIN_SECRET:
        raise PolicyError(f"secret has {len(raw)} bytes, {MIN_SECRET} are the least")
    return hmac.digest(raw, b"tiercache frame 1", "sha256")


def seal(key: str, frame: Frame | Fields, mac: bytes | None) -> bytes:
    """Return the bytes of a frame for one key, signed if there is a MAC key."""
    codec, algorithm, created, expires, stale_until, size, body = frame
    name = key.encode("utf-8", "surrogatepass")
    flags = algorithm | _SIGNED if mac else algorithm
    header = _pack(_MAGIC, codec, flags, created, expires, stale_until, len(name), len(body), size)
    signed = b"".join((header, name, body))
    return signed + hmac.digest(mac, signed, "sha256") if mac else signed


def unseal(key: str, payload: bytes, mac: bytes | None) -> Fields:
    """Return the `Frame` in a payload, as a plain tuple; `CodecError` with the reason if it is bad.

    The signature is checked before anything but the version is believed.
    """
    if len(payload) < _SIZE:
        raise CodecError(f"a payload of {len(payload)} bytes", reason="truncated")
    magic, codec, flags, created, expires, stale_until, name_size, body_size, size = _unpack(
        payload
    )
    if magic != _MAGIC or flags & _UNKNOWN:
        raise CodecError(f"not a frame of version {VERSION}", reason="version")
    signed = flags >= _SIGNED
    if signed is (not mac):
        raise CodecError("signed, with no secret here" if signed else "unsigned", reason="mac")
    body_at = _SIZE + name_size
    end = body_at + body_size
    if len(payload) != (end + _MAC_SIZE if signed else end):
        raise CodecError(f"{len(payload)} bytes of another number", reason="truncated")
    if mac and not hmac.compare_digest(
        hmac.digest(mac, memoryview(payload)[:end], "sha256"), payload[end:]
    ):
        raise CodecError("the signature is not that of this secret", reason="mac")
    if payload[_SIZE:body_at] != key.encode("utf-8", "surrogatepass"):
        raise CodecError("the payload of another key", reason="key")
    if not created <= expires <= stale_until:
        raise CodecError("times out of order", reason="value")
    body = payload[body_at:end]
    return codec, flags & _ALGORITHM, created, expires, stale_until, size, body
