"""How the calls of a decorated function are named: key, tags and ids, by its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tiercache.errors import KeyTemplateError
from tiercache.keys import (
    Template,
    class_identity,
    derived_key,
    function_identity,
    has_cache_key,
    identity_token,
    is_anonymous,
    key_of_scalars,
    versioned,
)


class Naming:
    """The parameters of a function, and the templates of its key and tags.

    ``shared`` says of a key whether other processes see it.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        key: str | None,
        tags: Sequence[str],
        ignore: Collection[str],
        many: bool,
    ) -> None:
        self.identity = identity = function_identity(function)
        self.signature = inspect.signature(function)
        self._function = function
        self._is_anonymous = is_anonymous(function)
        parameters = list(self.signature.parameters)
        self._instance = _instance_parameter(function, parameters)
        self.many = many
        self.ids = ""
        """The parameter that the ids of a batch function are in."""
        names = parameters
        if many:
            self._batch_at, self.ids = _batch_parameter(identity, parameters, self._instance)
            names = [*parameters, *_names_of_one(self.ids)]
        ignored = _checked_ignore(ignore, parameters, identity)
        self._named = tuple(name for name in parameters if name not in ignored)
        self._labels = (
            None
            if self._instance in self._named
            else tuple((f"{name}=", name) for name in self._named)
        )
        self._key = (
            None if key is None else Template(key, option="key", names=names, where=identity)
        )
        self._tags = tuple(
            Template(tag, option="tags", names=names, where=identity)
            for tag in texts(tags, "tags", identity)
        )

    @property
    def tags_at_most(self) -> int:
        """How many tags a call has, unless two of them are the same text."""
        return len({tag.text for tag in self._tags})

    def fields(self) -> list[str]:
        """Return the expressions that key and tags are made of: what tells calls apart."""
        if self._key is None:
            fields = list(self._named)
            if self._instance in fields:
                fields[fields.index(self._instance)] = f"{self._instance}.__cache_key__"
        else:
            fields = [field.expression for field in self._key.fields]
        for tag in self._tags:
            fields += [field.expression for field in tag.fields]
        return list(dict.fromkeys(fields))

    def check(self, *, shared: bool) -> None:
        """Raise `KeyTemplateError` if its keys would not say what they stand for."""
        if shared and self._key is None and self._is_anonymous:
            raise KeyTemplateError(
                f"{self.identity} is a lambda or has free variables, so its name does not say what "
                'it computes: give key="..." to share its results with other processes, or use a '
                "cache with a memory tier alone"
            )

    def key(self, arguments: Mapping[str, Any], version: str, *, shared: bool) -> str:
        """Return the text key of bound arguments."""
        if self._key is not None:
            return versioned(self._key.render(arguments), version)
        identity = self.identity
        if self._is_anonymous and not shared:
            identity = f"{identity}#{identity_token(self._function)}"
        if self._labels is not None:
            key = key_of_scalars(identity, version, self._labels, arguments)
            if key is not None:
                return key
        if shared:
            named = [(name, arguments[name]) for name in self._named]
        else:
            named = [(name, self._in_memory(name, arguments[name])) for name in self._named]
        return derived_key(identity, version, named)

    def _in_memory(self, name: str, value: object) -> object:
        """Return what stands for an argument where only this process sees the key."""
        if name == self._instance and not has_cache_key(value):
            return identity_token(value)
        if isinstance(value, type):  # also one that cannot be imported by its name
            return f"{class_identity(value)}#{identity_token(value)}"
        return value

    def tags(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the tags of bound arguments, sorted, each once."""
        if not self._tags:
            return ()
        return tuple(sorted({tag.render(arguments) for tag in self._tags}))

    def of_one(self, arguments: Mapping[str, Any], one: Any) -> dict[str, Any]:
        """Return the arguments of a batch call as those of one of its ids."""
        return {**arguments, **dict.fromkeys((self.ids, *_names_of_one(self.ids)), one)}

    def as_batch(
        self, arguments: Sequence[Any], keywords: dict[str, Any]
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        """Return the arguments of a batch function, given one id where its ids stand."""
        if not self.many:
            return arguments, keywords
        if self.ids in keywords:
            return arguments, {**keywords, self.ids: (keywords[self.ids],)}
        at = self._batch_at
        if len(arguments) <= at:
            return arguments, keywords
        return (*arguments[:at], (arguments[at],), *arguments[at + 1 :]), keywords


def _instance_parameter(function: Callable[..., Any], parameters: Sequence[str]) -> str | None:
    """Return the parameter that a method is bound through, for a function of a class body."""
    path = getattr(function, "__qualname__", "").split(".")
    in_class = len(path) > 1 and path[-2] != "<locals>"
    return "self" if in_class and parameters[:1] == ["self"] else None


def _batch_parameter(
    where: str, parameters: Sequence[str], instance: str | None
) -> tuple[int, str]:
    at = 1 if instance is not None or parameters[:1] == ["cls"] else 0
    if len(parameters) <= at:
        raise KeyTemplateError(f"{where} takes no ids: cached_many wants a loader (ids, *args)")
    return at, parameters[at]


def _names_of_one(ids: str) -> tuple[str, ...]:
    """Return the names under which one of the ids stands in a template."""
    singular = ids[:-1] if ids.endswith("s") and len(ids) > 1 else ids
    return tuple(dict.fromkeys(("id", singular)))


def _checked_ignore(
    ignore: Collection[str], parameters: Sequence[str], where: str
) -> frozenset[str]:
    names = texts(ignore, "ignore", where)
    unknown = [name for name in names if name.lstrip("*") not in parameters]
    if unknown:
        raise KeyTemplateError(
            f"ignore={unknown[0]!r} of {where} is not one of its parameters: "
            f"{', '.join(parameters) or 'it has none'}"
        )
    return frozenset(name.lstrip("*") for name in names)


def texts(given: Collection[str], option: str, where: str) -> tuple[str, ...]:
    """Return the texts of a list; refuse one text, which would be read letter by letter."""
    if isinstance(given, str) or not all(isinstance(each, str) for each in given):
        raise KeyTemplateError(
            f"{option}={given!r} of {where} is refused: give a list or tuple of texts, as in "
            f'{option}=["..."]'
        )
    return tuple(given)
