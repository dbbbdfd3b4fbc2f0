"""What stands in Redis: the names of keys, and the bytes of a slot.

::

    tc1:<namespace>:k:<key>      a slot
    tc1:<namespace>:g:<tag>      the token of a tag, 16 bytes
    tc1:<namespace>:n            the generation: the token of a tag that every entry carries
    {tc1:<namespace>}:e          the stream of events
    {tc1:<namespace>}:h, :r      the marks of transactions (`strict`)

    lease    L | token 16 | run 16                        W instead of L: somebody waits for it
    value    V | token 16 | run 16 | generation 16 | tags | payload
    tags     count 2 | (length 4 | tag | token 16)*        sorted by tag, each once

A script touches one of these keys, so that they may live on different nodes of a cluster. The
generation makes `clear` one deletion, at the price of 16 bytes per value and one more key in each
read.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple
from urllib.parse import quote

TOKEN: Final = 16

GRACE: Final = 3600.0
"""Seconds that a tag is kept beyond a lease, which may be renewed, so that its fill finds it."""
LEASE: Final = b"L"
VALUE: Final = b"V"

_COUNT: Final = struct.Struct(">H")
_LENGTH: Final = struct.Struct(">I")
_IDENTITY: Final = slice(1, 1 + 2 * TOKEN)
_LIFE: Final = slice(1 + TOKEN, 1 + 3 * TOKEN)
_RUN_AT: Final = 1 + TOKEN
_TAGS_AT: Final = 1 + 3 * TOKEN


class Names:
    """The keys of one namespace."""

    __slots__ = ("_slot", "_tag", "generation", "marks", "reliance", "stream")

    def __init__(self, namespace: str) -> None:
        root = b"tc1:" + quote(namespace, safe="", errors="surrogatepass").encode("ascii")
        self._slot = root + b":k:"
        self._tag = root + b":g:"
        self.generation = root + b":n"
        self.stream = b"{" + root + b"}:e"
        self.marks = b"{" + root + b"}:h"
        self.reliance = b"{" + root + b"}:r"

    def slot(self, key: str) -> bytes:
        """Return the name of a key's slot."""
        return self._slot + key.encode("utf-8", "surrogatepass")

    def tag(self, tag: str) -> bytes:
        """Return the name of a tag's token."""
        return self._tag + tag.encode("utf-8", "surrogatepass")


class Value(NamedTuple):
    """A value as it was found: its token, its tags with their tokens, and where the payload is."""

    token: bytes
    tags: tuple[tuple[str, bytes], ...]
    payload: bytes


def life(text: str) -> bytes:
    """Return 16 bytes for a server's run id, whatever its spelling."""
    return hashlib.blake2b(text.encode(), digest_size=TOKEN).digest()


def lease(token: bytes, run: bytes) -> bytes:
    """Return the bytes of a lease."""
    return LEASE + token + run


def held(head: bytes) -> bytes | None:
    """Return the token if the head of a slot is that of a lease; None for a value."""
    return None if head[:1] == VALUE else head[1 : 1 + TOKEN]


def identity(token: bytes, run: bytes) -> bytes:
    """Return what a fill compares: bytes 1 to 32 of a lease or value."""
    return token + run


def value(
    token: bytes, run: bytes, generation: bytes, tags: Mapping[str, bytes], payload: bytes
) -> bytes:
    """Return the bytes of a value."""
    return b"".join((VALUE, token, run, generation, _section(tags.items()), payload))


def expected(run: bytes, generation: bytes, tags: Mapping[str, bytes]) -> bytes:
    """Return what follows the token of a value that is readable with exactly these tags."""
    return run + generation + (_section(tags.items()) if tags else _NO_TAGS)


def payload(raw: bytes, wanted: bytes) -> bytes | None:
    """Return the payload of a value if what was `expected` follows its token."""
    if raw.startswith(VALUE) and raw.startswith(wanted, _RUN_AT):
        return raw[_RUN_AT + len(wanted) :]
    return None


def read(raw: bytes, run: bytes, generation: bytes, tags: Mapping[str, bytes]) -> Value | None:
    """Return the value if exactly these tags with these tokens make it readable."""
    found = payload(raw, expected(run, generation, tags))
    return None if found is None else Value(raw[1:_RUN_AT], tuple(tags.items()), found)


def parse(raw: bytes, run: bytes, generation: bytes) -> Value | None:
    """Return the value with the tags it carries, which are still to be compared."""
    if raw[:1] != VALUE or raw[_LIFE] != run + generation:
        return None
    tags = []
    at = _TAGS_AT + _COUNT.size
    try:
        for _ in range(_COUNT.unpack_from(raw, _TAGS_AT)[0]):
            start = at + _LENGTH.size
            end = start + _LENGTH.unpack_from(raw, at)[0]
            at = end + TOKEN
            tags.append((raw[start:end].decode("utf-8", "surrogatepass"), raw[end:at]))
    except (struct.error, UnicodeDecodeError):  # not as it was written
        return None
    return Value(raw[1 : 1 + TOKEN], tuple(tags), raw[at:])


_NO_TAGS: Final = _COUNT.pack(0)


def _section(tags: Iterable[tuple[str, bytes]]) -> bytes:
    parts = [b""]
    for tag, token in sorted(tags):
        name = tag.encode("utf-8", "surrogatepass")
        parts += (_LENGTH.pack(len(name)), name, token)
    parts[0] = _COUNT.pack(len(parts) // 3)
    return b"".join(parts)
