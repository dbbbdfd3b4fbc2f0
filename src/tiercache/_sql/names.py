"""Names that every database can hold and index: folded keys and tags, the tables' own names."""

from __future__ import annotations

from typing import Final, NamedTuple

from tiercache.errors import PolicyError

RUN: Final = ""
"""The tag that every entry of a namespace carries; its token is the namespace's run."""

_PLAIN: Final = 512
_SHOWN: Final = 100
_FOLDED: Final = "~"
_IDENTIFIER: Final = 40


def fold(name: str) -> str:
    """Return printable ASCII of at most 512 characters, another one for every other name.

    An index entry of PostgreSQL ends at 2,704 bytes, its text has no NUL, and not every database
    is encoded in UTF-8. What is short and printable ASCII stays as it is, for people who look
    into the table; the rest is a digest and what can be shown of its beginning.
    """
    short = 0 < len(name) <= _PLAIN and not name.startswith(_FOLDED)
    if short and name.isascii() and name.isprintable():
        return name
    from hashlib import blake2b

    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
    shown = ascii(name[:_SHOWN])[1:-1][:_SHOWN]
    return f"{_FOLDED}{digest}:{shown}"


class Tables(NamedTuple):
    """The tables of one prefix; ``plain`` is the prefix without its schema."""

    plain: str
    entry: str
    tag: str
    meta: str
    event: str
    outbox: str

    @property
    def of_tier(self) -> tuple[str, str, str]:
        """Return those that a tier works with."""
        return self.entry, self.tag, self.meta

    @classmethod
    def of(cls, prefix: str) -> Tables:
        """Return the tables of a prefix, ``name`` or ``schema.name``; `PolicyError` otherwise."""
        parts = prefix.split(".")
        if len(parts) > 2 or not all(_is_identifier(part) for part in parts):
            raise PolicyError(
                f"prefix={prefix!r} cannot name tables: use lower-case letters, digits and "
                f"underscores, at most {_IDENTIFIER} characters, after a schema if need be "
                "(prefix='app.tiercache')"
            )
        *schema, plain = parts
        where = "".join(f'"{part}".' for part in schema)
        names = ("entry", "tag", "meta", "event", "outbox")
        return cls(plain, *(f"{where}{plain}_{name}" for name in names))


def _is_identifier(part: str) -> bool:
    """Whether the part needs no quotes in either dialect."""
    return (
        0 < len(part) <= _IDENTIFIER
        and part.isascii()
        and part.isidentifier()
        and part == part.lower()
    )
