"""The small part of the model, and its ties to the code."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest

from tests.coherence.model.explore import PARTS, explore
from tests.coherence.model.rules import Rules
from tests.coherence.model.scenarios import MUTATIONS, SCENARIOS, Mutation

SMALL = [
    "own read in the transaction",
    "set() in a transaction, 2 writers",
    "strict, 2 writers",
]
"""Scenarios of some thousand states each; `make model` explores the others as well."""

QUICK = [
    "compare-and-set in L2",
    "compare-and-set in L3",
    "the token before the loader",
    "random tag tokens",
    "private loads in a writing transaction",
    "private loads in a reading transaction",
    "set() takes its token before the commit",
    "invalidation after the commit",
    "who hears of an incomplete pass goes round first",
    "L2 before the bus",
    "strict joiners need a proof",
]
"""Mutations that break within as many."""


@pytest.mark.parametrize("name", SMALL)
def test_the_protocol_holds(name: str) -> None:
    """No interleaving of the scenario breaks an invariant."""
    result = explore(SCENARIOS[name], Rules())
    assert result.violation is None, "\n".join(result.trace)
    assert result.states > 1_000


@pytest.mark.parametrize("without", QUICK)
def test_each_part_is_needed(without: str) -> None:
    """Without the part some interleaving breaks one, and the trace says how."""
    [mutation] = [each for each in MUTATIONS if each.without == without]
    result = explore(SCENARIOS[mutation.scenario], mutation.rules)
    assert result.violation is not None
    assert result.trace


def test_every_mutation_takes_one_part_out() -> None:
    """A mutation differs from the protocol, in a scenario that exists, under a name of its own."""
    names = [mutation.without for mutation in MUTATIONS]
    assert len(set(names)) == len(names)
    for mutation in MUTATIONS:
        assert mutation.rules != Rules()
        assert mutation.scenario in SCENARIOS


def test_every_step_names_the_code_that_does_it() -> None:
    """What a step of the model names exists: who renames it is sent back to the model."""
    steps = list(_steps())
    assert len(steps) > 20
    for name, code in steps:
        for path in code:
            assert callable(_find(path)), f"{name} is said to be done by {path}"


def _steps() -> Iterator[tuple[str, tuple[str, ...]]]:
    for part in PARTS:
        for name, method in vars(part).items():
            code = getattr(method, "code", None)
            if code is not None:
                yield f"{part.__name__}.{name}", code


def _find(path: str) -> object:
    """Import the module, whatever part of the path that is, and follow the rest."""
    names = path.split(".")
    for length in range(len(names) - 1, 0, -1):
        try:
            found: object = importlib.import_module(".".join(names[:length]))
        except ModuleNotFoundError:
            continue
        for name in names[length:]:
            found = getattr(found, name)
        return found
    raise LookupError(path)


def test_a_mutation_has_a_shortest_trace() -> None:
    """The trace leads from the start to what is wrong, one step at a time."""
    mutation = Mutation("dirty reads", "own read in the transaction", Rules(private_write=False))
    result = explore(SCENARIOS[mutation.scenario], mutation.rules)
    assert list(result.trace) == [
        "W1(P0) begins, writes",
        "W1 reads its own row through the cache",
    ]
    assert result.violation == "uncommitted value 1 stored in L2"
