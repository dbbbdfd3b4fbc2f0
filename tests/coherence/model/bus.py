"""What each process hears of the others."""

from __future__ import annotations

from tests.coherence.model.protocol import Protocol, Steps, done_by
from tests.coherence.model.state import COMPLETE, INCOMPLETE, PREMATURE, World


class Buses(Protocol):
    """Delivery, in order and as late as it likes; gaps, and connections that come and go."""

    def steps(self, world: World) -> Steps:
        """Yield what each process may hear next."""
        for number, process in enumerate(world.processes):
            if not process.alive:
                continue
            if process.hearing:
                yield from self.deliver(world, number)
            elif process.connected:
                if process.stream != world.stream:
                    yield from self.find_gap(world, number)
                elif process.cursor < len(world.log):
                    yield from self.deliver(world, number)
                if number == 1 and self.left(world, "disconnect"):
                    new = world.clone()
                    self.use(new, "disconnect")
                    new.set_process(number, connected=False)
                    yield f"P{number} loses the bus", new
            else:
                yield from self.reconnect(world, number)

    @done_by(
        "tiercache.background.Background.heard",
        "tiercache.invalidation.Invalidation.apply",
        "tiercache.invalidation.Invalidation.remember",
    )
    def deliver(self, world: World, number: int) -> Steps:
        """Hear of one pass; one's own are known already.

        Of an incomplete one in two steps: loads in threads come in between.
        """
        process = world.processes[number]
        source, version, kind = world.log[process.cursor]
        new = world.clone()
        if source != number and kind == INCOMPLETE and self.rules.bypass and not process.hearing:
            new.set_process(number, hearing=True)
            if self.rules.hears == "pending first":
                new.set_process(number, pending=version)
                yield f"P{number} goes round the tiers for {version}", new
            else:
                self.void_l1(new, number)
                yield f"P{number} empties its L1 for {version}", new
            return
        new.set_process(number, cursor=process.cursor + 1, hearing=False)
        if source != number:
            if process.hearing and self.rules.hears == "memory first":
                new.set_process(number, pending=version)
            else:
                self.void_l1(new, number)
            if kind != PREMATURE:
                new.set_process(number, handled=max(process.handled, version))
            if kind == COMPLETE and self.rules.settle == "heard":
                new.set_process(number, pending=0)
        yield f"P{number} handles event {version}", new

    @done_by("tiercache.background.Background.gap", "tiercache.invalidation.Invalidation.gap")
    def find_gap(self, world: World, number: int) -> Steps:
        """Find another stream than the one that was followed."""
        process = world.processes[number]
        new = world.clone()
        new.set_process(number, stream=world.stream, cursor=len(world.log), late=False)
        if self.rules.gap:
            handled = max(process.handled, world.published[number])
            new.set_process(number, l1=None, handled=handled)
            if self.rules.gap_voids:
                self.void_l1(new, number)
        yield f"P{number} finds a new stream", new

    @done_by("tiercache.bus.redis.RedisBus.run", "tiercache.background.Background.connected")
    def reconnect(self, world: World, number: int) -> Steps:
        """Come back, or let ``bus_timeout`` pass."""
        late = world.processes[number].late
        new = world.clone()
        new.set_process(number, connected=True, late=late and not self.rules.bus_timeout)
        yield f"P{number} reconnects", new
        if not late:
            new = world.clone()
            new.set_process(number, late=True)
            yield f"bus_timeout passes in P{number}", new
