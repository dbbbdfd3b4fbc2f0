"""What both dialects share: what is to be watched, names, and how a template becomes SQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from typing import Final, Literal, NamedTuple

from tiercache.errors import KeyTemplateError, PolicyError
from tiercache.keys import Template
from tiercache.keys.scalars import is_writable

VERSION: Final = 1
"""Of what the triggers do; goes up when other text is written for the same templates."""

EVERYTHING: Final = '{"a":1}'
"""The body of an outbox row that clears the cache."""

_MARK: Final = re.compile(r"tiercache\.watch (\d+) ([0-9a-f]{32})\b")
_PART: Final = r'"(?:[^"\0]|"")+"|[^\W\d][\w$]*'
_TABLE: Final = re.compile(rf"(?:({_PART})\.)?({_PART})")


class Watched(NamedTuple):
    """A table and what its rows name; ``channel`` (PostgreSQL) is notified of rows that wait."""

    namespace: str
    table: str
    """As it was given."""
    tags: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    channel: str | None = None

    @property
    def where(self) -> str:
        """How messages call it."""
        return f"watch({self.table!r})"

    def templates(self, columns: Collection[str]) -> list[Name]:
        """Check the templates against the columns of the table; none is there twice."""
        given: tuple[tuple[Literal["k", "g"], str, tuple[str, ...]], ...] = (
            ("k", "keys", self.keys),
            ("g", "tags", self.tags),
        )
        names = [
            Name(kind, self._template(text, option, columns))
            for kind, option, texts in given
            for text in dict.fromkeys(texts)
        ]
        if not names:
            raise KeyTemplateError(
                f'{self.where} names nothing to invalidate: give tags=["..."] or keys=["..."]'
            )
        return names

    def _template(self, text: str, option: str, columns: Collection[str]) -> Template:
        template = Template(text, option=option, names=columns, where=self.where)
        for field in template.fields:
            if field.digest:
                raise KeyTemplateError(
                    f"{self.where}: {option}={text!r} has the digest {{{field.expression}:h}}, "
                    "which a database cannot compute: name a column as it is, such as the id, here "
                    "and where the value is cached"
                )
            if field.path:
                raise KeyTemplateError(
                    f"{self.where}: {option}={text!r} has the attribute {{{field.expression}}}: "
                    f"a field is a column of the table, one of {', '.join(columns)}"
                )
        if not is_writable(text):
            raise KeyTemplateError(
                f"{self.where}: {option}={text!r} holds a NUL or a lone surrogate, which no "
                "database can store"
            )
        return template


class Name(NamedTuple):
    """A template of keys (``k``) or tags (``g``): the fields of an event."""

    kind: Literal["k", "g"]
    template: Template

    def sql(self, column: Callable[[str], str], literal: Callable[[str], str]) -> str:
        """Return the text as an SQL expression; ``column`` is that of one, and never null."""
        first, *rest = self.template.literals
        parts = [literal(first)] if first else []
        for field, text in zip(self.template.fields, rest, strict=True):
            parts.append(column(field.root))
            if text:
                parts.append(literal(text))
        return " || ".join(parts)


def columns_of(names: Sequence[Name]) -> list[str]:
    """Return the columns that the templates need, each once."""
    return list(dict.fromkeys(field.root for name in names for field in name.template.fields))


def refuse(watched: Watched, column: str, kind: str, fine: Sequence[str]) -> None:
    """Raise for a column whose text SQL and Python do not agree upon."""
    raise KeyTemplateError(
        f"{watched.where} cannot write {{{column}}}: the text of a column of type {kind} is not "
        f"the one that Python gives its value; name another ({', '.join(fine) or 'there is none'})"
        ", or add a stored generated column with the text that you cache under"
    )


def no_table(watched: str, near: Sequence[str] = ()) -> PolicyError:
    """Say that there is no such table."""
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return PolicyError(f"{watched}: there is no such table{hint}")


# --- names -----------------------------------------------------------------------------------


class Part(NamedTuple):
    """An identifier, without the quotes it may have had."""

    text: str
    quoted: bool


def parse(where: str, table: str) -> tuple[Part | None, Part]:
    """Read ``table`` or ``schema.table`` as SQL does; `PolicyError` for anything else."""
    match = _TABLE.fullmatch(table) if isinstance(table, str) else None
    if match is None:
        raise PolicyError(
            f"{where}: {table!r} is not the name of a table; accepted: 'users', 'app.users', and "
            "what needs quotes in quotes, '\"Users\"'"
        )
    schema, name = match.groups()
    return None if schema is None else _part(schema), _part(name)


def _part(text: str) -> Part:
    if text.startswith('"'):
        return Part(text[1:-1].replace('""', '"'), True)
    return Part(text, False)


def quoted(name: str) -> str:
    """Return an identifier for an SQL text."""
    return '"' + name.replace('"', '""') + '"'


def short(size: int, *parts: str) -> str:
    """Return ``size`` bytes of a digest for a name: letters and digits, 8 for 5 bytes."""
    from base64 import b32encode

    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return b32encode(blake2b(text, digest_size=size).digest()).decode().rstrip("=").lower()


# --- versions --------------------------------------------------------------------------------


def mark(*parts: object) -> str:
    """Return the mark that stands in a trigger made of these parts: its version and a digest."""
    digest = blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"tiercache.watch {VERSION} {digest}"


def is_newer(found: str, ours: str) -> bool:
    """Whether a later version wrote the text for the same parts: it is left alone."""
    mine, theirs = _MARK.search(ours), _MARK.search(found)
    if mine is None or theirs is None:
        return False
    return theirs[2] == mine[2] and int(theirs[1]) > int(mine[1])
