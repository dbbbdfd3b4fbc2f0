"""Loads: whatever may put a value into a tier, from the first look to the answer."""

from __future__ import annotations

from collections.abc import Callable

from tests.coherence.model.protocol import Protocol, Steps, Violation, done_by
from tests.coherence.model.rules import Rules, Scenario
from tests.coherence.model.state import FlightAt, Slot, Token, World


class Loads(Protocol):
    """What each load does next."""

    def __init__(self, scenario: Scenario, rules: Rules) -> None:
        super().__init__(scenario, rules)
        self._next: dict[FlightAt, Callable[[World, int], Steps]] = {
            "idle": self.begin,
            "l2": self.look_into_l2,
            "l3": self.look_into_l3,
            "loader": self.load,
            "fill_l3": self.fill_l3,
            "fill_l2": self.fill_l2,
            "sent_l2": self.fill_l2,
            "fill_l1": self.fill_l1,
        }

    def steps(self, world: World) -> Steps:
        """Yield the next step of each, and whoever may join it."""
        for number, flight in enumerate(world.flights):
            if not world.processes[flight.process].alive:
                continue
            if flight.at == "idle" and flight.runs == 0:
                continue
            yield from self._next[flight.at](world, number)
            waiting = self.scenario.join and flight.at != "idle" and flight.joiner is None
            if waiting and (self.strict or not flight.void):
                yield from self.join(world, number)

    def _name(self, world: World, number: int) -> str:
        return f"P{world.flights[number].process}/{number}"

    @done_by(
        "tiercache.local.Local.lookup",
        "tiercache.engine.Engine.read",
        "tiercache.local.Local.enter",
    )
    def begin(self, world: World, number: int) -> Steps:
        """Answer from L1, or register a flight: that is L1's token."""
        flight = world.flights[number]
        process = world.processes[flight.process]
        strict, timeout = self.strict, self.rules.bus_timeout
        need_l1 = world.db if strict else process.handled
        need = world.db if strict else max(process.handled, world.acknowledged)
        new = world.clone()
        if not strict and process.l1 is not None and not (process.late and timeout):
            if process.late and process.l1 < world.acknowledged:
                raise Violation(f"P{flight.process} serves {process.l1} from L1 past bus_timeout")
            new.set_flight(number, value=process.l1, need_l1=need_l1, need=need_l1)
            self.answer(new, number, "L1")
            yield f"P{flight.process} hits L1", new
            return
        snapshot = world.db if self._is_old(number) else flight.value
        new.set_flight(number, at="l2", need_l1=need_l1, need=need, void=False, value=snapshot)
        yield f"{self._name(world, number)} begins", new

    def _is_old(self, number: int) -> bool:
        return self.scenario.old_snapshot and number == 0

    # -- looking ------------------------------------------------------------------------------

    @done_by(
        "tiercache.loading.looking.Looking._look",
        "tiercache.tiers.redis.RedisTier.read",
        "tiercache.tiers.redis.RedisTier.lease",
        "tiercache.lease.Leases.waiting",
        "tiercache.strict.reading.StrictReading._look",
        "tiercache._recovery.Recovery.covers",
    )
    def look_into_l2(self, world: World, number: int) -> Steps:
        """Read L2; on a miss leave a lease, and take the tag's token."""
        name, flight = self._name(world, number), world.flights[number]
        new = world.clone()
        hit = self.readable_l2(new)
        if world.processes[flight.process].pending:
            new.set_flight(number, at="loader")
            yield f"{name} goes round L2 and L3 (pending)", new
        elif self.strict and self.rules.marks and world.marks:
            new.set_flight(number, at="loader")
            yield f"{name} sees a mark: database", new
        elif hit is not None:
            new.set_flight(number, at="fill_l1", value=hit, accepted=True)
            yield f"{name} reads {hit} from L2", new
        else:
            token = self._lease_l2(new)
            tag = None if token is None else self._tag_of_l2(new)
            below = self.scenario.l3 and not self.strict
            new.set_flight(number, at="l3" if below else "loader", k2=token, g2=tag)
            yield f"{name} misses L2, token {token}", new

    def _lease_l2(self, world: World) -> Token:
        slot = world.l2
        if self.strict and self._may_have_lost_marks(world):
            return None
        if self.rules.slots == "tombstone":
            return "absent" if slot is None else slot.token
        if self.rules.token == "after":
            return None
        # Somebody else's lease is waited for, which is to do nothing yet and then to look again.
        # Who has lost patience, or cannot be woken, puts his own in its place.
        token = world.fresh()
        world.l2 = Slot("lease", token, run=world.run)
        return token

    def _may_have_lost_marks(self, world: World) -> bool:
        horizon = world.epoch
        return horizon is None or any(
            (horizon >> number) & 1 and not self.ended(world, number)
            for number in range(len(world.writers))
        )

    def _tag_of_l2(self, world: World) -> Token:
        if not self.tagged:
            return None
        if world.t2 is None and self.rules.tags != "absent":
            world.t2 = self.new_tag(world, None)
        return "absent" if world.t2 is None else world.t2

    @done_by(
        "tiercache.loading.looking.Looking._look",
        "tiercache.tiers.database.DatabaseTier.read",
        "tiercache.tiers.database.DatabaseTier.lease",
    )
    def look_into_l3(self, world: World, number: int) -> Steps:
        """The same in L3."""
        name = self._name(world, number)
        new = world.clone()
        hit = self.readable_l3(new)
        if hit is not None:
            new.set_flight(number, at="fill_l2", value=hit)
            yield f"{name} reads {hit} from L3", new
            return
        token = new.fresh()
        new.l3 = Slot("lease", token)
        if self.tagged and new.t3 is None and self.rules.tags != "absent":
            new.t3 = self.new_tag(new, None)
        tag = "absent" if new.t3 is None else new.t3
        new.set_flight(number, at="loader", k3=token, g3=tag)
        yield f"{name} misses L3", new

    # -- loading ------------------------------------------------------------------------------

    @done_by(
        "tiercache.loading.path.Loading._load", "tiercache.engine.private.PrivateReading._load"
    )
    def load(self, world: World, number: int) -> Steps:
        """Read the database; inside a transaction nothing is kept of it."""
        flight = world.flights[number]
        new = world.clone()
        if not self._is_old(number):
            new.set_flight(number, at="fill_l3", value=world.db)
        elif self.rules.private_read:
            flights = list(new.flights)
            flights[number] = flight._replace(
                at="idle",
                runs=flight.runs - 1,
                value=None,
                k2=None,
                k3=None,
                g2=None,
                g3=None,
                void=False,
            )
            new.flights = tuple(flights)
        else:
            new.set_flight(number, at="fill_l3", need_l1=0, need=0)
        yield f"{self._name(world, number)} loader reads {new.flights[number].value}", new

    # -- filling ------------------------------------------------------------------------------

    @done_by("tiercache.loading.path.Loading._fill", "tiercache.tiers.database.DatabaseTier.fill")
    def fill_l3(self, world: World, number: int) -> Steps:
        """Replace the lease in L3, if it is there."""
        flight = world.flights[number]
        new = world.clone()
        slot = new.l3
        accepted = (
            flight.k3 is not None
            and slot is not None
            and slot.kind == "lease"
            and slot.token == flight.k3
        ) or (self.scenario.l3 and not self.rules.compare_l3)
        if accepted:
            tag = new.t3 if self.rules.tag_token == "after" else flight.g3
            new.l3 = Slot("value", new.fresh(), flight.value, tag)
        new.set_flight(number, at="fill_l2", k3=None, g3=None)
        yield f"{self._name(world, number)} fill L3 {_word(accepted)}", new

    @done_by("tiercache.loading.path.Loading._fill", "tiercache.tiers.redis.RedisTier.fill")
    def fill_l2(self, world: World, number: int) -> Steps:
        """Replace the lease in L2, if it is there and of this run."""
        name, flight = self._name(world, number), world.flights[number]
        new = world.clone()
        by_client = self.rules.slots == "tombstone" and self.rules.age == "client"
        if by_client and flight.at == "fill_l2":  # the age is checked, then the command travels
            new.set_flight(number, at="fill_l1" if flight.old else "sent_l2")
            yield f"{name} sends fill", new
            return
        accepted = self._accepts(new, number)
        if not self.rules.compare_l2:
            accepted = True
        if self.strict and self.rules.marks_refuse and world.marks:
            accepted = False
        if accepted:
            tag = new.t2 if self.rules.tag_token == "after" else flight.g2
            new.l2 = Slot("value", new.fresh(), flight.value, tag, new.run)
        new.set_flight(number, at="fill_l1", k2=None, g2=None, accepted=accepted)
        yield f"{name} fill L2 {_word(accepted)}", new

    def _accepts(self, world: World, number: int) -> bool:
        token, slot = world.flights[number].k2, world.l2
        if self.rules.slots == "tombstone":
            current = "absent" if slot is None else slot.token
            young = self.rules.age != "server" or not world.flights[number].old
            return token is not None and current == token and young
        if self.rules.token == "after":
            if slot is None:
                slot = world.l2 = Slot("lease", world.fresh(), run=world.run)
            token = slot.token
        return (
            token is not None
            and slot is not None
            and slot.kind == "lease"
            and slot.token == token
            and (slot.run == world.run or not self.rules.run)
        )

    @done_by(
        "tiercache.loading.path.Loading.fill_local",
        "tiercache.local.Local.fill",
        "tiercache.local.Local.land",
    )
    def fill_l1(self, world: World, number: int) -> Steps:
        """Fill L1 unless the flight is void; answer everybody who joined it."""
        name, flight = self._name(world, number), world.flights[number]
        new = world.clone()
        keeps = not self.strict and not flight.void
        if keeps:
            new.set_process(flight.process, l1=flight.value)
        self.answer(new, number, "flight")
        yield f"{name} fill L1 {_word(not flight.void)}, answers {flight.value}", new

    @done_by("tiercache.local.Local.enter", "tiercache.strict.loading.StrictLoading.joinable")
    def join(self, world: World, number: int) -> Steps:
        """Let a second caller wait for the same flight."""
        flight = world.flights[number]
        need = world.db if self.strict else world.processes[flight.process].handled
        new = world.clone()
        new.set_flight(number, joiner=need, accepted=False)
        yield f"a second caller in P{flight.process} joins load {number}", new


def _word(accepted: bool) -> str:
    return "ok" if accepted else "refused"
