"""What happens to Redis."""

from __future__ import annotations

from tests.coherence.model.protocol import Protocol, Steps, done_by
from tests.coherence.model.state import Snapshot, World


class Faults(Protocol):
    """What it loses, and what others do to it; each as often as the scenario says."""

    def steps(self, world: World) -> Steps:
        """Yield what may happen to it."""
        if self.left(world, "flush"):
            new = world.clone()
            self.use(new, "flush")
            new.l2 = new.t2 = None
            self._lose_stream(new)
            new.marks, new.epoch = 0, None
            yield "Redis loses everything (FLUSHALL / restart empty)", new
        if world.epoch is None:
            yield from self.begin_epoch(world)
        if world.l2 is not None and self.left(world, "evict"):
            new = world.clone()
            self.use(new, "evict")
            new.l2 = None
            yield "slot evicted / lease expired", new
        if world.t2 is not None and self.left(world, "tag"):
            new = world.clone()
            self.use(new, "tag")
            new.t2 = None
            yield "tag token evicted", new
        if self.left(world, "sibling") and (world.t2 is None or world.t3 is None):
            new = world.clone()
            self.use(new, "sibling")
            new.t2 = self.new_tag(new, None) if new.t2 is None else new.t2
            new.t3 = self.new_tag(new, None) if new.t3 is None else new.t3
            yield "another key of the tag is missed: new tokens", new
        if world.l2 is not None and world.l2.kind == "tomb" and self.left(world, "tombstone"):
            yield from self.expire_tombstone(world)
        if self.left(world, "snapshot"):
            yield from self.fail_over(world)

    @staticmethod
    def _lose_stream(world: World) -> None:
        world.log = ()
        world.stream += 1

    @done_by("tiercache.strict.upkeep.Upkeep._establish")
    def begin_epoch(self, world: World) -> Steps:
        """Make the place where marks are kept anew; who may have lost one is the horizon."""
        horizon = 0
        for number, writer in enumerate(world.writers):
            if writer.at in ("tx", "marked") or writer.late:
                horizon |= 1 << number
        new = world.clone()
        new.epoch = horizon if self.rules.horizon else 0
        yield "new epoch", new

    def expire_tombstone(self, world: World) -> Steps:
        """Let the trace of an invalidation end while loads that it concerns are under way."""
        new = world.clone()
        self.use(new, "tombstone")
        new.l2 = None
        new.flights = tuple(
            flight if flight.at == "idle" else flight._replace(old=True) for flight in new.flights
        )
        yield "tombstone expires (running loads are now older than it)", new

    @done_by("tiercache._redis.frames.read", "tiercache._redis.server.Server.run")
    def fail_over(self, world: World) -> Steps:
        """Come back as one was a while ago, under another run id."""
        if world.snapshot is None and world.l2 is not None:
            new = world.clone()
            new.snapshot = Snapshot(world.l2, world.t2, world.marks, world.epoch)
            yield "state reaches the replica / RDB snapshot", new
        if isinstance(world.snapshot, Snapshot):
            new = world.clone()
            self.use(new, "snapshot")
            new.l2, new.t2, new.marks, new.epoch = world.snapshot
            new.snapshot = "used"
            new.run += 1
            self._lose_stream(new)
            if self.rules.run and self.strict:
                new.epoch, new.marks = None, 0
            yield "failover to the lagging replica / restart from snapshot", new
