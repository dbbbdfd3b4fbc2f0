"""Functions that are compiled for one class of records, because a loop over its fields is dear.

For ``class User`` with ``id: int``, ``name: str`` and ``roles: list[Role]``, one record's are::

    def lower(it):
        if type(it) is cls and known(it.__dict__):
            try:
                a0 = it.id
                a1 = it.name
                a2 = it.roles
                if type(a0) in t0 and type(a1) is t1:
                    return [a0, a1, p2(a2)]
            except AttributeError:
                pass
        return walk(it)

    def lift(it):
        if type(it) is list and len(it) == 3:
            a0, a1, a2 = it
            if type(a0) in t0 and type(a1) is t1:
                a2 = p2(a2)
                record = new()
                record.id = a0
                record.name = a1
                record.roles = a2
                return record
        return walk(it)

which takes a quarter of the time of the loop that ``walk`` is. Whatever is not as it should be goes
to ``walk``, to be refused in its words.

The source says how many fields there are, and the names of those that are plain identifiers; types,
plans and all other names are values that it finds under names of our own. It is compiled when the
function is first called: of a class that is only met in lists nothing handles a single one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from keyword import iskeyword
from types import FunctionType, MemberDescriptorType
from typing import Any, NamedTuple

from tiercache.codec.safe.plan import Lower, Plan

_Names = dict[str, Any]

_put: Any = object.__setattr__


class Making(NamedTuple):
    """How a record is made of the values ``a0``, ``a1``... of its fields, and called ``record``."""

    lines: tuple[str, ...]
    names: Mapping[str, Any]


def by_attributes(cls: type, new: Callable[[], Any], fields: Mapping[str, Plan]) -> Making:
    """Return the making of an object whose fields are attributes.

    They are stored as ``object.__setattr__`` does, which is what a plain assignment comes to unless
    the class, as a frozen one, has its own.
    """
    plain = stores_plainly(cls)
    lines = ["record = new()"]
    names: _Names = {"new": new, "put": _put}
    for at, field in enumerate(fields):
        if plain and _is_writable(field):
            lines.append(f"record.{field} = a{at}")
        elif slot := slot_of(cls, field):
            names[f"s{at}"] = slot
            lines.append(f"s{at}(record, a{at})")
        else:
            names[f"n{at}"] = field
            lines.append(f"put(record, n{at}, a{at})")
    return Making(tuple(lines), names)


def by_items(new: Callable[[Any], Any], fields: Mapping[str, Plan]) -> Making:
    """Return the making of an object that ``new`` makes of the tuple of its fields."""
    return Making((f"record = new(({_arguments(fields)}))",), {"new": new})


def stores_plainly(cls: type) -> bool:
    """Tell whether assigning to an attribute is no matter of the class itself."""
    return cls.__setattr__ is _put


def slot_of(cls: type, field: str) -> Callable[[Any, Any], None] | None:
    """Return what stores a field into its slot; None where the field is in no slot."""
    for base in cls.__mro__:
        if field in vars(base):
            found = vars(base)[field]
            return found.__set__ if type(found) is MemberDescriptorType else None
    return None


def lower_one(
    cls: type, fields: Mapping[str, Plan], known: frozenset[str] | None, walk: Lower
) -> Lower:
    """Return what lowers a record to its row.

    ``known`` are the names that its ``__dict__`` may have, None if it has none.
    """

    def write(names: _Names) -> Iterator[str]:
        names.update(cls=cls, walk=walk)
        if known is not None:
            names["known"] = known.issuperset
        tests, rest = _own(fields, names)
        row = [f"p{at}(a{at})" if at in rest else f"a{at}" for at in range(len(fields))]
        for at in rest:
            names[f"p{at}"] = rest[at].lower
        yield f"if type(it) is cls{' and known(it.__dict__)' if known is not None else ''}:"
        yield "    try:"
        for at, field in enumerate(fields):
            yield f"        a{at} = {_read(field, at, names)}"
        yield f"        if {tests}:"
        yield f"            return [{', '.join(row)}]"
        yield "    except AttributeError:"
        yield "        pass"
        yield "return walk(it)"

    return _lazily(write)


def lift_one(fields: Mapping[str, Plan], making: Making, walk: Lower) -> Lower:
    """Return what makes a record of its row."""

    def write(names: _Names) -> Iterator[str]:
        names.update(making.names, walk=walk)
        tests, rest = _own(fields, names)
        yield f"if type(it) is list and len(it) == {len(fields)}:"
        yield f"    {_arguments(fields)} = it"
        yield f"    if {tests}:"
        for at, plan in rest.items():
            names[f"p{at}"] = plan.lift
            yield f"        a{at} = p{at}(a{at})"
        for line in making.lines:
            yield f"        {line}"
        yield "        return record"
        yield "return walk(it)"

    return _lazily(write)


def lower_columns(fields: Mapping[str, Plan]) -> Lower:
    """Return what lowers records to one column per field; AttributeError where one is not set."""

    def write(names: _Names) -> Iterator[str]:
        yield "return ["
        for at, (field, plan) in enumerate(fields.items()):
            names[f"p{at}"] = plan.lower_all
            yield f"    p{at}([{_read(field, at, names)} for it in it]),"
        yield "]"

    return _lazily(write)


def build_rows(fields: Mapping[str, Plan], making: Making) -> Lower:
    """Return what makes records of the lifted columns of their fields, which are equally long."""

    def write(names: _Names) -> Iterator[str]:
        names.update(making.names)
        yield "records = []"
        yield "add = records.append"
        yield f"for {_arguments(fields)} in zip(*it):"
        for line in making.lines:
            yield f"    {line}"
        yield "    add(record)"
        yield "return records"

    return _lazily(write)


def _own(fields: Mapping[str, Plan], names: _Names) -> tuple[str, dict[int, Plan]]:
    """Return the test of the fields that are their own wire form, and the plans of the others."""
    tests: list[str] = []
    rest: dict[int, Plan] = {}
    for at, plan in enumerate(fields.values()):
        if plan.native:
            one = len(plan.native) == 1
            (names[f"t{at}"],) = plan.native if one else (plan.native,)
            tests.append(f"type(a{at}) {'is' if one else 'in'} t{at}")
        elif plan.items:
            names[f"t{at}"] = plan.items.issuperset
            tests.append(f"type(a{at}) is list and t{at}(map(type, a{at}))")
        else:
            rest[at] = plan
    return " and ".join(tests) or "True", rest


def _arguments(fields: Mapping[str, Plan]) -> str:
    return "".join(f"a{at}, " for at in range(len(fields)))


def _read(field: str, at: int, names: _Names) -> str:
    if _is_writable(field):
        return f"it.{field}"
    names[f"n{at}"] = field
    return f"getattr(it, n{at})"


def _is_writable(field: str) -> bool:
    """Tell whether the name is the same in source; beyond ASCII, Python may take it for another."""
    return (
        field.isascii() and field.isidentifier() and not iskeyword(field) and field != "__debug__"
    )


def _lazily(write: Callable[[_Names], Iterator[str]]) -> Lower:
    """Return the function of ``it`` whose body ``write`` gives, and puts into a namespace."""
    names: _Names = {}

    def compile_and_call(it: Any) -> Any:
        source = "\n    ".join(["def generated(it):", *write(names)])
        # Our own text: of the class nothing but names of its fields, which are identifiers.
        exec(compile(source, "<tiercache record>", "exec"), names)  # noqa: S102
        lazy.__code__ = names["generated"].__code__  # whoever holds it goes on with this
        return lazy(it)

    names["compile_and_call"] = compile_and_call
    lazy = FunctionType(_uncompiled.__code__, names)
    return lazy


def _uncompiled(it: Any) -> Any:
    return globals()["compile_and_call"](it)
