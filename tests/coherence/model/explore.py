"""Breadth first through every state that the steps can reach."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.coherence.model.bus import Buses
from tests.coherence.model.faults import Faults
from tests.coherence.model.invariants import Invariants
from tests.coherence.model.loads import Loads
from tests.coherence.model.protocol import Protocol, Violation
from tests.coherence.model.relays import Relays
from tests.coherence.model.rules import Rules, Scenario
from tests.coherence.model.state import Flight, World, Writer
from tests.coherence.model.writers import Writers

PARTS: tuple[type[Protocol], ...] = (Writers, Relays, Buses, Faults, Loads)
_LIMIT = 1_500_000

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Result:
    """What an exploration found."""

    states: int
    steps: int
    violation: str | None
    trace: Sequence[str] = ()
    """The shortest way to the violation."""


def explore(scenario: Scenario, rules: Rules) -> Result:
    """Explore one scenario until something is wrong, or nothing is left."""
    parts = [part(scenario, rules) for part in PARTS]
    invariants = Invariants(scenario, rules)
    rename = rules.tags != "counter"  # counters are values, not names
    start = _start(scenario)
    seen: dict[Key, tuple[Key, str] | None] = {start.key(rename=rename): None}
    queue = deque([(start, start.key(rename=rename))])
    steps = 0
    while queue:
        world, key = queue.popleft()
        try:
            found = [step for part in parts for step in part.steps(world)]
        except Violation as violation:
            return Result(len(seen), steps, str(violation), [*_trace(seen, key), "next step"])
        steps += len(found)
        for label, new in found:
            new_key = new.key(rename=rename)
            if new_key in seen:
                continue
            seen[new_key] = (key, label)
            try:
                invariants.check(new)
            except Violation as violation:
                return Result(len(seen), steps, str(violation), _trace(seen, new_key))
            queue.append((new, new_key))
        if len(seen) > _LIMIT:
            return Result(len(seen), steps, "more states than can be explored")
    return Result(len(seen), steps, None)


def _start(scenario: Scenario) -> World:
    return World(
        writers=tuple(Writer() for _ in scenario.writers),
        flights=tuple(Flight(process, "idle", runs) for process, runs in scenario.flights),
        relays=scenario.relays,
        budget=tuple(scenario.faults[fault] for fault in sorted(scenario.faults)),
    )


def _trace(seen: dict[Key, tuple[Key, str] | None], key: Key) -> list[str]:
    labels: list[str] = []
    while (before := seen[key]) is not None:
        key, label = before
        labels.append(label)
    return labels[::-1]
