"""One of several types: tagged by the member, many of them as one column per member."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

from tiercache.codec.safe.plan import Lower, Part, Plan, Refused, as_list, mismatch, native

_NONE: Final = frozenset({type(None)})


def union(members: Sequence[Plan]) -> Plan:
    """Return the plan of a union, tagged by the member.

    Members that are their own wire form stay so, and so does the single other member of an
    ``Optional``. The order is that of the shapes, because ``A | B`` and ``B | A`` are equal.
    """
    plain = frozenset[type]().union(*(member.native for member in members))
    others = sorted((member for member in members if not member.native), key=_rank)
    shape = "|".join(sorted({member.shape for member in members}))
    if not others:
        return native(shape, *plain)
    if len(others) == 1 and plain <= _NONE and others[0].types is not None:
        return _optional(shape, others[0]) if plain else others[0]
    return _tagged(shape, plain, others)


def _rank(member: Plan) -> tuple[bool, str]:
    return member.types is None, member.shape  # what takes anything is asked last


def _optional(shape: str, member: Plan) -> Plan:
    assert member.types is not None

    def lower(value: Any) -> Any:
        return None if value is None else member.lower(value)

    def lift(wire: Any) -> Any:
        return None if wire is None else member.lift(wire)

    lower_all, lift_all = _columns(_NONE, [member], lower, lift)
    return Plan(
        shape,
        lower,
        lift,
        types=member.types | _NONE,
        lower_all=lower_all,
        lift_all=lift_all,
        parts=lambda value: () if value is None else member.parts(value),
    )


def _tagged(shape: str, plain: frozenset[type], others: Sequence[Plan]) -> Plan:
    lifts = [member.lift for member in others]

    def candidates(kind: type) -> Iterator[tuple[int, Plan]]:
        for index, member in enumerate(others):
            if member.types is None or kind in member.types:
                yield index, member

    def lower(value: Any) -> Any:
        kind = type(value)
        if kind in plain:
            return value
        refusal = mismatch(value, shape)
        for index, member in candidates(kind):
            try:
                return [index, member.lower(value)]
            except Refused as error:
                refusal = error
        raise refusal

    def lift(wire: Any) -> Any:
        if type(wire) in plain:
            return wire
        index, inner = as_list(wire)
        if type(index) is not int or not 0 <= index < len(lifts):
            raise Refused("a member that the union does not have")
        return lifts[index](inner)

    def parts(value: Any) -> Iterator[Part]:
        """Look inside the only member that could be meant; with several, the place is this one."""
        meant = [member for _, member in candidates(type(value))]
        if len(meant) == 1:
            yield from meant[0].parts(value)

    lower_all, lift_all = _columns(plain, others, lower, lift)
    types = [member.types for member in others]
    return Plan(
        shape,
        lower,
        lift,
        types=None if None in types else plain.union(*(some for some in types if some)),
        lower_all=lower_all,
        lift_all=lift_all,
        parts=parts,
    )


def _columns(
    plain: frozenset[type], others: Sequence[Plan], lower: Lower, lift: Lower
) -> tuple[Callable[[Collection[Any]], Any], Callable[[Any], list[Any]]]:
    """Return how many values are lowered and lifted: ``[which, plain values, column, ...]``.

    ``which`` says for each value which column is next, or is one number for all of them, or None
    where a value's type does not tell its member: then they stand one by one.
    """
    last = len(others)
    meant: dict[type, list[int]] = {kind: [last] for kind in plain}
    for index, member in enumerate(others):
        for kind in member.types or ():
            meant.setdefault(kind, []).append(index)
    clear = not any(member.types is None for member in others)
    place = {kind: found[0] for kind, found in meant.items() if clear and len(found) == 1}

    def lower_all(values: Collection[Any]) -> Any:
        kinds = set(map(type, values))
        if not place.keys() >= kinds:
            return [None, [lower(value) for value in values]]
        places = {place[kind] for kind in kinds}
        columns: list[Any] = [[] for _ in range(last + 1)]
        if len(places) == 1:
            which: Any = places.pop()
            columns[which] = values
        else:
            which = [place[type(value)] for value in values]
            for index, value in zip(which, values, strict=True):
                columns[index].append(value)
        rest = zip(others, columns, strict=False)
        return [which, columns[last], *[member.lower_all(column) for member, column in rest]]

    def lift_all(wire: Any) -> list[Any]:
        which, plains, *columns = as_list(wire)
        if which is None:
            return [lift(item) for item in as_list(plains)]
        if not plain.issuperset(map(type, as_list(plains))):
            raise Refused("a value of no member of the union")
        pairs = zip(others, columns, strict=True)
        sources = [*[member.lift_all(column) for member, column in pairs], plains]
        if type(which) is int:
            values: list[Any] = sources[which]
        else:
            heads = [iter(source) for source in sources]
            values = [next(heads[index]) for index in as_list(which)]
        if len(values) != sum(map(len, sources)):
            raise Refused("columns of another length than the union")
        return values

    return lower_all, lift_all
