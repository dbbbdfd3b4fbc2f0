"""Templates of keys and tags: ``"user:{user.id}"``, compiled and checked when decorating.

A field is the text that an f-string would give, so a tag made by a template and one made by hand
are the same tag. That makes it necessary to watch where a field ends: ``"{a}:{b}"`` would give one
key for ``("x", "y:z")`` and ``("x:y", "z")``. So in a key with several fields the text of a field
must not contain what ends it: then the first place where that occurs is the end of the field, and
the fields can be read back. Tags need no such care: to share one costs an invalidation too many.
Kinds are not told apart: ``1`` and ``"1"`` are one text, here as in an f-string.
"""

from __future__ import annotations

import enum
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from tiercache.errors import KeyTemplateError
from tiercache.keys.scalars import is_writable
from tiercache.keys.stable import digest, stable_text

_TOKEN: Final = re.compile(r"(\{\{)|(\}\})|\{([^{}]*)\}|[{}]")
_BIG: Final = 1 << 64  # an int of thousands of digits has no text
_ALLOWED: Final = "str, int, bool, None, UUID, date, datetime, Decimal and Enum"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a template: ``{user.id}`` is root ``user`` and path ``("id",)``.

    ``digest`` is set for ``{user.id:h}``.
    """

    expression: str
    root: str
    path: tuple[str, ...] = ()
    digest: bool = False


class Template:
    """The text of a key or tag with fields, checked on construction.

    ``option`` is where it was given (``key``, ``tags`` or ``keys``) and ``where`` the name of the
    function, both for messages. ``names`` are the parameters that fields may start with; None
    allows any, as for the payload of an event. Whatever is wrong raises `KeyTemplateError`.
    ``literals`` are the texts before, between and behind the fields.
    """

    __slots__ = ("_names", "_only", "_option", "_steps", "_where", "fields", "literals", "text")

    def __init__(
        self, text: str, *, option: str, names: Collection[str] | None, where: str
    ) -> None:
        self.text = text
        self._option = option
        self._where = where
        self._names = names
        literals, self.fields = self._parse()
        self.literals = tuple(literals)
        self._steps = tuple(zip(self.fields, literals[1:], self._guards(literals), strict=True))
        simple = len(self.fields) == 1 and not (self.fields[0].path or self.fields[0].digest)
        self._only = (literals[0], self.fields[0].root, literals[1]) if simple else None

    def __repr__(self) -> str:
        return f"Template({self.text!r})"

    def render(self, arguments: Mapping[str, object]) -> str:
        """Fill the fields; a value that has no place in a key raises `KeyTemplateError`."""
        if self._only is not None:  # as most are: a seventh of what a hit in Redis costs otherwise
            head, root, tail = self._only
            value = arguments.get(root)
            kind = value.__class__
            if kind is str:
                assert isinstance(value, str)
                if value.isascii() and "\0" not in value:
                    return f"{head}{value}{tail}"
            elif kind is int:
                assert isinstance(value, int)
                if -_BIG < value < _BIG:
                    return f"{head}{value}{tail}"
        parts = [self.literals[0]]
        for field, literal, guarded in self._steps:
            value = self._look_up(field, arguments)
            if field.digest:
                text = digest(stable_text(value, where=self._where, argument=field.expression))
            else:
                text, shortest = self._fill(field, value)
                if guarded and shortest < len(text):
                    self._refuse_ambiguous(field, text, shortest, literal)
            parts.append(text)
            parts.append(literal)
        return "".join(parts)

    # --- compiling ---------------------------------------------------------------------------

    def _parse(self) -> tuple[list[str], tuple[Field, ...]]:
        if not isinstance(self.text, str) or not self.text:
            raise self._refusal("is not a template: write a text, with {fields} where it varies")
        literals, fields, at = [""], [], 0
        for match in _TOKEN.finditer(self.text):
            literals[-1] += self.text[at : match.start()]
            at = match.end()
            opening, closing, inside = match.groups()
            if opening or closing:
                literals[-1] += "{" if opening else "}"
            elif inside is None:
                raise self._refusal("has a single brace: write {{ or }} for the character itself")
            else:
                fields.append(self._field(inside))
                literals.append("")
        literals[-1] += self.text[at:]
        return literals, tuple(fields)

    def _field(self, inside: str) -> Field:
        shown = f"{{{inside}}}"
        if inside.strip() == "" or inside.split(".")[0].isdigit():
            raise self._refusal(f"has the positional field {shown}: name what it is, {self._known}")
        if "!" in inside:
            raise self._refusal(f"has a conversion in {shown}: there are none, only :h")
        expression, colon, spec = inside.partition(":")
        if colon and spec != "h":
            raise self._refusal(
                f"has the format {spec!r} in {shown}: the only one is :h, for a digest"
            )
        root, *path = expression.split(".")
        if not all(name.isidentifier() for name in (root, *path)):
            raise self._refusal(
                f"has the field {shown}: a field is a parameter or an attribute of one, "
                "such as {user.id}"
            )
        if self._names is not None and root not in self._names:
            raise self._refusal(f"has the unknown field {shown}: {self._known}{self._near(root)}")
        return Field(expression, root, tuple(path), bool(colon))

    def _guards(self, literals: list[str]) -> list[bool]:
        """Tell for each field whether its text could be mistaken for that of the next.

        A digest has one length, and the last of the others ends where the rest begins.
        """
        open_ended = [index for index, field in enumerate(self.fields) if not field.digest]
        guarded = set(open_ended[:-1]) if self._option == "key" else set()
        for index in sorted(guarded):
            if not literals[index + 1]:
                raise self._refusal(
                    f"has nothing between {{{self.fields[index].expression}}} and the next field: "
                    "put a separator there, or write "
                    f"{{{self.fields[index].expression}:h}} for a digest"
                )
        return [index in guarded for index in range(len(self.fields))]

    # --- rendering ---------------------------------------------------------------------------

    def _look_up(self, field: Field, arguments: Mapping[str, object]) -> object:
        try:
            value = arguments[field.root]
        except KeyError:
            raise self._refusal(
                f"needs {{{field.expression}}}, which is missing here: "
                f"there is only {', '.join(map(str, arguments)) or 'nothing'}"
            ) from None
        for name in field.path:
            try:
                value = getattr(value, name)
            except AttributeError as error:
                raise self._refusal(
                    f"cannot fill {{{field.expression}}}: a {type(value).__qualname__} has no "
                    f"attribute {name!r}"
                ) from error
        return value

    def _fill(self, field: Field, value: object) -> tuple[str, int]:
        """Return the text of a field and, as `_shortest` does, from where on it is ambiguous."""
        while isinstance(value, enum.Enum):
            value = value.value
        shortest = _shortest(value)
        if shortest is None:
            raise self._refusal(
                f"cannot fill {{{field.expression}}} with a {type(value).__qualname__}: allowed "
                f"are {_ALLOWED}; write {{{field.expression}:h}} for a digest, or an attribute "
                f"such as {{{field.expression}.id}}"
            )
        try:
            text = f"{value}"
        except ValueError as error:  # an int of thousands of digits
            raise self._refusal(f"cannot fill {{{field.expression}}}: {error}") from error
        if shortest == 0 and not is_writable(text):
            raise self._refusal(
                f"cannot fill {{{field.expression}}} with {text!r}, which holds a NUL or a lone "
                f"surrogate: write {{{field.expression}:h}} for a digest"
            )
        return text, shortest

    def _refuse_ambiguous(self, field: Field, text: str, shortest: int, literal: str) -> None:
        if (text + literal).find(literal, shortest) < len(text):
            raise self._refusal(
                f"cannot fill {{{field.expression}}} with {text!r}: it contains {literal!r}, which "
                f"ends the field, so that other arguments could give the same key; write "
                f"{{{field.expression}:h}} for a digest, or choose another separator"
            )

    # --- messages ----------------------------------------------------------------------------

    @property
    def _known(self) -> str:
        if self._names is None:
            return "such as {id}"
        return f"the names are {', '.join(self._names)}" if self._names else "there are no names"

    def _near(self, name: str) -> str:
        from difflib import get_close_matches

        near = get_close_matches(name, self._names or (), 1)
        return f"; did you mean {{{near[0]}}}?" if near else ""

    def _refusal(self, problem: str) -> KeyTemplateError:
        return KeyTemplateError(f"{self._where}: {self._option}={self.text!r} {problem}")


_NEVER: Final = sys.maxsize


def _shortest(value: object) -> int | None:
    """Return from where on the text of a value could end earlier, or None if it is not allowed.

    That is the length of the shortest text of its kind that this text may begin with: any for a
    str, one digit for an int. Some kinds have none: a date is always ten characters long, and no
    other bool begins with ``True``.
    """
    if isinstance(value, str):
        return 0
    if isinstance(value, int):
        if isinstance(value, bool):
            return _NEVER
        return 2 if value < 0 else 1
    if value is None:
        return _NEVER
    for module, name, shortest in _LATE:
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(value, kind):
            return shortest
    return None


# A value of a class exists only where its module was imported. A datetime is a date as well.
_LATE: Final = (
    ("uuid", "UUID", _NEVER),
    ("datetime", "datetime", len("2024-01-01 00:00:00")),
    ("datetime", "date", _NEVER),
    ("decimal", "Decimal", 1),
)
