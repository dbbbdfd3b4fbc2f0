"""Who finishes what others began: the relay of the outbox, and what a process has pending."""

from __future__ import annotations

from tests.coherence.model.protocol import Protocol, Steps, done_by
from tests.coherence.model.state import Relay, World


class Relays(Protocol):
    """Any process, at any time, as slowly as it likes."""

    def steps(self, world: World) -> Steps:
        """Yield the next step of each."""
        for number, relay in enumerate(world.relays):
            if relay is None:
                yield from self.claim(world, number)
            else:
                yield from self.relay(world, number, relay)
        for process, found in enumerate(world.processes):
            if found.alive and found.pending:
                yield from self.repeat(world, process)

    @done_by("tiercache.outbox.relay.Relay._relay", "tiercache.outbox.table.OutboxTable.take")
    def claim(self, world: World, number: int) -> Steps:
        """Take a row of the outbox."""
        process = 1 if world.processes[1].alive else 0
        for version in range(1, len(self.scenario.writers) + 1):
            if (world.outbox >> version) & 1:
                new = world.clone()
                new.set_relay(number, Relay(process, version, 0))
                yield f"relay in P{process} takes the outbox row of {version}", new

    @done_by(
        "tiercache.outbox.relay.Relay._carry_out",
        "tiercache.invalidation.Invalidation._pass",
        "tiercache.outbox.table.OutboxTable.delete",
    )
    def relay(self, world: World, number: int, relay: Relay) -> Steps:
        """Carry out the next stage of the pass; after the last the row is deleted."""
        process, version, at = relay
        whole = self.rules.repeat == "all"
        stage = self.relay_order[at]
        new = world.clone()
        if whole or stage == "L3":
            self.invalidate(new, stage, version, process)
        if at + 1 < len(self.relay_order):
            new.set_relay(number, Relay(process, version, at + 1))
        else:
            new.set_relay(number, None)
            self.acknowledge(new, version)
            if whole:
                new.set_process(process, handled=max(new.processes[process].handled, version))
        yield f"relay in P{process}: {stage} of {version}", new

    @done_by(
        "tiercache.invalidation.Invalidation.replay",
        "tiercache._recovery.Recovery.pending",
        "tiercache._recovery.Recovery.done",
    )
    def repeat(self, world: World, process: int) -> Steps:
        """Repeat the pass for what is pending, whole; what came to it meanwhile stays pending."""
        pending, repeating = world.processes[process].pending, world.processes[process].repeating
        at, version = repeating or (0, pending)
        stage = self.relay_order[at]
        new = world.clone()
        self.invalidate(new, stage, version, process)
        if at + 1 < len(self.relay_order):
            new.set_process(process, repeating=(at + 1, version))
        else:
            left = pending if pending != version else 0
            new.set_process(process, repeating=None, pending=left)
            new.acknowledged = max(new.acknowledged, version)
        yield f"P{process} repeats {stage} for {version}", new
