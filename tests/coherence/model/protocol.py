"""What the steps have in common: read a tier, invalidate it, void an L1, answer a caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tests.coherence.model.rules import Fault, Rules, Scenario, Stage
from tests.coherence.model.state import (
    COMPLETE,
    PREMATURE,
    Flight,
    Slot,
    Token,
    World,
)

Step = tuple[str, World]
Steps = Iterator[Step]
M = TypeVar("M", bound=Callable[..., Any])


class Violation(Exception):
    """An invariant does not hold."""


def done_by(*code: str) -> Callable[[M], M]:
    """Name the functions of the code that do what a step does."""

    def mark(method: M) -> M:
        method.code = code  # type: ignore[attr-defined]
        return method

    return mark


class Protocol:
    """One scenario under one set of rules."""

    def __init__(self, scenario: Scenario, rules: Rules) -> None:
        self.scenario = scenario
        self.rules = rules
        self.faults: list[Fault] = sorted(scenario.faults)
        self.tagged = scenario.tagged
        self.strict = scenario.strict
        self.order: tuple[Stage, ...] = ("L2",) if scenario.strict else rules.order
        self.relay_order: tuple[Stage, ...] = (
            ("L2",) if scenario.strict else ("L3", "L2", "BUS", "L1")
        )

    def steps(self, world: World) -> Steps:
        """Yield what can happen next, with a label."""
        raise NotImplementedError

    # -- faults -------------------------------------------------------------------------------

    def left(self, world: World, fault: Fault) -> bool:
        """Say whether the fault may still happen."""
        return fault in self.scenario.faults and world.budget[self.faults.index(fault)] > 0

    def use(self, world: World, fault: Fault) -> None:
        """Let it happen."""
        budget = list(world.budget)
        budget[self.faults.index(fault)] -= 1
        world.budget = tuple(budget)

    def kill(self, world: World, process: int) -> None:
        """End a process, with all it has under way."""
        world.set_process(process, alive=False, l1=None, connected=False, repeating=None)
        world.flights = tuple(
            flight if flight.process != process else Flight(process, "idle", 0)
            for flight in world.flights
        )
        world.relays = tuple(
            None if relay and relay.process == process else relay for relay in world.relays
        )

    # -- reading ------------------------------------------------------------------------------

    def tag_agrees(self, stored: Token, current: Token) -> bool:
        """Say whether a value's tag token is the one that the tier has."""
        if not self.tagged:
            return True
        if self.rules.tags == "absent":
            return stored == ("absent" if current is None else current)
        return current is not None and stored == current

    def readable_l2(self, world: World) -> int | None:
        """Return the version that L2 serves, if any."""
        slot = world.l2
        if slot is None or slot.kind != "value" or not self.tag_agrees(slot.tag, world.t2):
            return None
        return slot.version if slot.run == world.run or not self.rules.run else None

    def readable_l3(self, world: World) -> int | None:
        """Return the version that L3 serves, if any."""
        slot = world.l3
        if slot is None or slot.kind != "value" or not self.tag_agrees(slot.tag, world.t3):
            return None
        return slot.version

    def new_tag(self, world: World, old: Token) -> Token:
        """Make a tag's token."""
        if self.rules.tags == "counter":
            return 1 if not isinstance(old, int) else old + 1
        return world.fresh()

    def gone_tag(self, world: World, old: Token) -> Token:
        """Return what an invalidation leaves of a tag's token."""
        return None if self.rules.tags == "random" else self.new_tag(world, old)

    # -- invalidating -------------------------------------------------------------------------

    def void_l1(self, world: World, process: int) -> None:
        """Empty an L1 and void the flights of its process, in one step."""
        world.set_process(process, l1=None)
        if self.rules.void:
            world.flights = tuple(
                flight._replace(void=True)
                if flight.process == process and flight.at != "idle"
                else flight
                for flight in world.flights
            )

    def invalidate(
        self,
        world: World,
        stage: Stage,
        version: int,
        process: int,
        kind: int = COMPLETE,
        *,
        sets: bool = False,
    ) -> None:
        """Carry out one stage of a pass."""
        if stage == "L1":
            self.void_l1(world, process)
        elif stage == "L3":
            self._invalidate_l3(world)
        elif stage == "L2":
            self._invalidate_l2(world, version, sets)
        else:
            world.log = (*world.log, (process, version, kind))
            if kind != PREMATURE:
                one, other = world.published
                world.published = (
                    one if process == 0 else max(one, version),
                    other if process == 1 else max(other, version),
                )

    def _invalidate_l3(self, world: World) -> None:
        if not self.scenario.l3:
            return
        if self.tagged:
            world.t3 = self.gone_tag(world, world.t3)
        else:
            world.l3 = None

    def _invalidate_l2(self, world: World, version: int, sets: bool) -> None:
        if self.strict:
            world.marks &= ~(1 << (version - 1))
        if sets:  # put iff the slot is what it was, else delete
            slot, late = world.l2, self.rules.set_token == "after"
            same = late or (slot is not None and slot.token == world.captured)
            token = world.fresh()
            world.l2 = Slot("value", token, version, None, world.run) if same else None
        elif self.tagged:
            world.t2 = self.gone_tag(world, world.t2)
        elif self.rules.slots == "tombstone":
            world.l2 = Slot("tomb", world.fresh())
        else:
            world.l2 = None

    def acknowledge(self, world: World, version: int) -> None:
        """End a whole pass: from here on every tier must be new for everybody."""
        world.acknowledged = max(world.acknowledged, version)
        world.outbox &= ~(1 << version)

    def ended(self, world: World, writer: int) -> bool:
        """Say whether a transaction is over in the database, too."""
        found = world.writers[writer]
        return found.at not in ("idle", "tx", "marked") and not found.late

    # -- answering ----------------------------------------------------------------------------

    def answer(self, world: World, number: int, via: str) -> None:
        """Give the flight's callers what it has brought; `Violation` if they must not get it."""
        flight = world.flights[number]
        version = flight.value
        assert version is not None
        if not (world.committed >> version) & 1:
            raise Violation(f"dirty value {version} returned")
        need = flight.need_l1 if via == "L1" else flight.need
        if version < need:
            raise Violation(f"process {flight.process} read {version} via {via}, must be >= {need}")
        if flight.joiner is not None:
            served = flight.accepted or not (self.strict and self.rules.joiners_proven)
            if served and version < flight.joiner:
                raise Violation(
                    f"joiner in process {flight.process} got {version}, must be >= {flight.joiner}"
                )
        flights = list(world.flights)
        flights[number] = Flight(flight.process, "idle", flight.runs - 1)
        world.flights = tuple(flights)
