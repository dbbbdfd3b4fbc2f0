"""Values to bytes and back, exactly: a codec, compression around it, the sealed frame outside."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from tiercache.codec.base import Codec
from tiercache.codec.compression import ABOVE, MAX_SIZE, Algorithm, Compression
from tiercache.entry import Entry
from tiercache.errors import CodecError, PolicyError

__all__ = ["Codec", "Sealer", "return_type"]

_USERS_FIRST: Final = 128
_entry: Final = partial(tuple.__new__, Entry)


class Sealer:
    """Turns entries into the payloads of shared tiers, and back.

    ``codec`` is ``"safe"`` (the default), ``"pickle"`` or any `Codec`; ``secret`` (16 bytes or
    more) signs every payload and refuses unsigned ones. Bodies above ``compress_above`` bytes are
    compressed (None: never), and none may be larger than ``max_size`` bytes.
    """

    def __init__(
        self,
        codec: Codec | str | None = None,
        *,
        secret: str | bytes | None = None,
        compress_above: int | None = ABOVE,
        compression: Algorithm = "zlib",
        max_size: int = MAX_SIZE,
    ) -> None:
        from tiercache.codec import frame

        self._codec, secret = _chosen(codec, secret)
        self._mac = None if secret is None else frame.mac_key(secret)
        compressed = Compression(compress_above, max_size, compression)
        self._pack = compressed.pack
        self._unpack = compressed.unpack
        self._seal = frame.seal
        self._unseal = frame.unseal

    def seal(self, key: str, entry: Entry, type_: Any = Any) -> bytes:
        """Return the payload of an entry; `CodecError` when its value cannot be kept exactly."""
        codec = self._codec
        value, created, expires, stale_until, _ = entry
        try:
            body = codec.encode(value, type_)
        except CodecError:
            raise
        except Exception as error:
            raise CodecError(f"value: {codec!r} refuses it: {error}") from error
        algorithm, size, body = self._pack(body)
        frame = codec.id, algorithm, created, expires, stale_until, size, body
        return self._seal(key, frame, self._mac)

    def open(self, key: str, payload: bytes, type_: Any = Any) -> Entry:
        """Return the entry in a payload, without its tags; `CodecError` says why it is refused."""
        number, algorithm, created, expires, stale_until, size, body = self._unseal(
            key, payload, self._mac
        )
        codec = self._codec
        if number != codec.id:
            raise CodecError(f"written by codec {number}, not {codec.id}", reason="codec")
        body = self._unpack(algorithm, size, body)
        try:
            value = codec.decode(body, type_)
        except CodecError:
            raise
        except Exception as error:
            raise CodecError(f"{codec!r} cannot read it: {error}") from error
        return _entry((value, created, expires, stale_until, ()))


def _chosen(
    codec: Codec | str | None, secret: str | bytes | None
) -> tuple[Codec, str | bytes | None]:
    """Return the codec that is meant, and the secret that goes with it."""
    if codec is None or codec == "safe":
        from tiercache.codec.safe import SafeCodec

        return SafeCodec(), secret
    from tiercache.codec.pickled import PickleCodec

    if codec == "pickle":
        return PickleCodec(secret), secret
    if isinstance(codec, str):
        raise PolicyError(f"codec={codec!r} is neither 'safe' nor 'pickle' nor a Codec")
    if isinstance(codec, PickleCodec):
        return codec, codec.secret if secret is None else secret
    from tiercache.codec.safe import SafeCodec

    number = codec.id
    if not isinstance(codec, SafeCodec) and not _USERS_FIRST <= number <= 255:
        raise PolicyError(f"{codec!r} has the id {number!r}; users' own are 128 to 255")
    return codec, secret


def return_type(function: Any) -> Any:
    """Return the type of the values a function returns, resolved; `Any` if it says nothing.

    See `tiercache.codec.safe.hints.return_type`; resolved when called, not when decorating.
    """
    from tiercache.codec.safe import hints

    return hints.return_type(function)
