"""Pickle, for those who ask for it by name and have a secret to sign with."""

from __future__ import annotations

from typing import Any

from tiercache.errors import CodecError, PolicyError


class PickleCodec:
    """Keeps whatever pickle keeps. Only ever reads what the secret has signed.

    Unpickling executes what the bytes say, so the frame's signature is checked before they come
    here; without a secret there is none, and this codec cannot be made.
    """

    id = 2

    def __init__(self, secret: str | bytes | None = None) -> None:
        if secret is None:
            raise PolicyError(
                'codec="pickle" executes what it reads and needs a secret to sign it with: '
                "pass secret= (16 bytes or more), "
                'or use codec="safe" and annotate what the functions return'
            )
        self.secret = secret

    def encode(self, value: object, type_: Any = Any) -> bytes:
        """Return the pickled value; `CodecError` when pickle refuses it."""
        import pickle

        try:
            return pickle.dumps(value, protocol=5)
        except Exception as error:
            raise CodecError(f"value: pickle refuses it: {error}") from error

    def decode(self, data: bytes, type_: Any = Any) -> object:
        """Return the unpickled value of bytes that were signed; `CodecError` when that fails."""
        import pickle

        try:
            return pickle.loads(data)  # noqa: S301  # the frame's signature was checked before
        except Exception as error:
            raise CodecError(f"not a pickle that can be read here: {error}") from error
