"""Transactions that write the row, and the invalidations that they carry."""

from __future__ import annotations

from tests.coherence.model.protocol import Protocol, Steps, done_by
from tests.coherence.model.rules import Stage
from tests.coherence.model.state import COMPLETE, INCOMPLETE, PREMATURE, Slot, World

_EARLY: tuple[Stage, ...] = ("L3", "L2", "BUS", "L1")


class Writers(Protocol):
    """What writers do next. The row's lock lets one transaction at a time through, in order."""

    def steps(self, world: World) -> Steps:
        """Yield the next steps of each."""
        for number, writer in enumerate(world.writers):
            alive = world.processes[self.scenario.writers[number]].alive
            if writer.at == "idle":
                if alive:
                    yield from self.begin(world, number)
            elif writer.at == "tx":
                yield from self.inside(world, number, alive)
            if self._may_commit(world, number):
                yield from self.commit(world, number, alive)
            if writer.late:
                yield from self.land(world, number)
            if writer.at == "dead":
                yield from self.unmark(world, number)
            elif writer.at in ("inv", "unknown") and alive:
                yield from self.invalidate_next(world, number)

    @done_by("poolkit.pool.Pool.transaction")
    def begin(self, world: World, number: int) -> Steps:
        """Take the row's lock and write."""
        if all(self._let_go(world, each) for each in range(number)):
            new = world.clone()
            new.set_writer(number, at="tx")
            yield f"W{number + 1}(P{self.scenario.writers[number]}) begins, writes", new

    def _let_go(self, world: World, number: int) -> bool:
        writer = world.writers[number]
        return writer.at not in ("idle", "tx", "marked") and not writer.late

    def inside(self, world: World, number: int, alive: bool) -> Steps:
        """Do what comes between the UPDATE and the COMMIT."""
        if not alive:
            return
        stage = world.writers[number].stage
        if self.scenario.read_inside and stage == 0:
            yield from self.read_own(world, number)
        if self._must_capture(world, number):
            yield from self.capture(world, number)
        if self.strict and self.rules.marks and world.epoch is not None:
            yield from self.mark(world, number)
        if self.rules.before_commit and stage < 2:
            yield from self.invalidate_early(world, number)

    @done_by("tiercache.engine.Engine.read", "tiercache.engine.private.PrivateReading.read")
    def read_own(self, world: World, number: int) -> Steps:
        """Read through the cache what is not committed."""
        version, process = number + 1, self.scenario.writers[number]
        new = world.clone()
        new.set_writer(number, stage=1)
        if not self.rules.private_write:
            new.set_process(process, l1=version)
            if new.l2 is None:
                new.l2 = Slot("value", new.fresh(), version, new.fresh(), new.run)
        yield f"W{version} reads its own row through the cache", new

    def _must_capture(self, world: World, number: int) -> bool:
        return (
            self.scenario.setting == number
            and self.rules.set_token == "before"
            and world.writers[number].stage == 0
        )

    @done_by("tiercache.setting.Setting.prepare", "tiercache.tiers.redis.RedisTier.lease")
    def capture(self, world: World, number: int) -> Steps:
        """Leave the lease that `set` will replace."""
        new = world.clone()
        new.captured = new.fresh()
        new.l2 = Slot("lease", new.captured, run=new.run)
        new.set_writer(number, stage=1)
        yield f"W{number + 1} captures the L2 token for set()", new

    @done_by("tiercache.strict.marking.RedisMarking.seal")
    def mark(self, world: World, number: int) -> Steps:
        """Mark the key in L2, so that nobody trusts it until the transaction is over."""
        new = world.clone()
        new.marks |= 1 << number
        new.set_writer(number, at="marked", stage=0)
        yield f"W{number + 1} marks L2", new

    def invalidate_early(self, world: World, number: int) -> Steps:
        """Invalidate before the commit, which is too early."""
        version, process = number + 1, self.scenario.writers[number]
        new = world.clone()
        for stage in _EARLY:
            self.invalidate(new, stage, version, process)
        new.set_writer(number, stage=2)
        yield f"W{version} invalidates before commit", new

    def _may_commit(self, world: World, number: int) -> bool:
        writer = world.writers[number]
        if writer.at == "marked":
            return True
        return (
            writer.at == "tx"
            and not (self.strict and self.rules.marks)
            and not self._must_capture(world, number)
            and not (self.rules.before_commit and writer.stage < 2)
        )

    @done_by(
        "poolkit.transaction.Transaction.__aexit__",
        "tiercache.outbox.collecting.Outbox.collect",
        "tiercache.outbox.table.OutboxTable.insert",
    )
    def commit(self, world: World, number: int, alive: bool) -> Steps:
        """Send COMMIT: it is carried out, or not, or nobody knows."""
        version, process = number + 1, self.scenario.writers[number]
        if alive:
            new = self._committed(world, version)
            over = self.rules.before_commit or self.scenario.watched
            new.set_writer(number, at="done" if over else "inv", stage=0)
            yield f"W{version} COMMIT", new
            if self.scenario.crash:
                new = self._committed(world, version)
                new.set_writer(number, at="dead", stage=0)
                self.kill(new, process)
                yield f"W{version} COMMIT, then P{process} dies", new
            if self.scenario.unknown:
                yield from self.lose_the_answer(world, number)
            if self.scenario.rollback:
                yield from self.roll_back(world, number)
        is_marked = world.writers[number].at == "marked" and (world.marks >> number) & 1
        if self.rules.marks_expire and is_marked:
            new = world.clone()
            new.marks &= ~(1 << number)
            yield f"mark of W{version} expires", new

    def _committed(self, world: World, version: int) -> World:
        new = world.clone()
        new.db = version
        new.committed |= 1 << version
        if self.rules.outbox:
            new.outbox |= 1 << version
        return new

    @done_by("tiercache.outbox.relay.Relay._doubt", "tiercache.outbox.relay.Relay._settle")
    def lose_the_answer(self, world: World, number: int) -> Steps:
        """Lose the connection between COMMIT and its answer."""
        new = self._committed(world, number + 1)
        new.set_writer(number, at="unknown", stage=0)
        yield f"W{number + 1} COMMIT (applied), outcome unknown", new
        new = world.clone()
        new.set_writer(number, at="unknown", stage=0, late=True)
        yield f"W{number + 1} COMMIT still in the server, outcome unknown", new

    @done_by("poolkit.transaction.Transaction.__aexit__", "tiercache.setting.Setting.undo")
    def roll_back(self, world: World, number: int) -> Steps:
        """Roll back: nothing was invalidated, and nothing is."""
        process = self.scenario.writers[number]
        new = world.clone()
        new.set_writer(number, at="done", stage=0)
        new.marks &= ~(1 << number)
        yield f"W{number + 1} ROLLBACK", new
        if self.scenario.crash:
            new = world.clone()
            new.set_writer(number, at="dead", stage=0)
            self.kill(new, process)
            yield f"P{process} dies inside W{number + 1}", new

    def land(self, world: World, number: int) -> Steps:
        """Carry out a COMMIT that was under way in the server."""
        new = self._committed(world, number + 1)
        new.set_writer(number, late=False)
        yield f"W{number + 1}: the server finishes the COMMIT now", new

    @done_by("tiercache.strict.upkeep.Upkeep._resolve")
    def unmark(self, world: World, number: int) -> Steps:
        """Take away the mark of a transaction that is known to have been rolled back."""
        if (world.marks >> number) & 1 and not (world.committed >> (number + 1)) & 1:
            new = world.clone()
            new.marks &= ~(1 << number)
            yield f"janitor: W{number + 1} aborted, mark removed", new

    @done_by(
        "tiercache.outbox.relay.Relay.carry",
        "tiercache.invalidation.Invalidation._pass",
        "tiercache.setting.Setting.commit",
    )
    def invalidate_next(self, world: World, number: int) -> Steps:
        """Carry out the next stage of the pass."""
        version, process = number + 1, self.scenario.writers[number]
        writer = world.writers[number]
        known = writer.at == "inv"
        stage = self.order[writer.stage]
        new = world.clone()
        self.invalidate(
            new,
            stage,
            version,
            process,
            COMPLETE if known else PREMATURE,
            sets=self.scenario.setting == number,
        )
        if writer.stage + 1 < len(self.order):
            new.set_writer(number, stage=writer.stage + 1)
        else:
            if known:
                self.acknowledge(new, version)
                handled = max(new.processes[process].handled, version)
                new.set_process(process, handled=handled)
            if self.scenario.setting == number:
                new.captured = None
            new.set_writer(number, at="done", stage=0)
        yield f"W{version} invalidates {stage}", new
        if known and stage == "L2" and self.left(world, "l2"):
            yield from self.miss_a_tier(world, number, "L2")
        if known and stage == "L3" and self.left(world, "l3"):
            yield from self.miss_a_tier(world, number, "L3")
        if self.scenario.crash:
            new = world.clone()
            new.set_writer(number, at="dead", stage=0)
            self.kill(new, process)
            yield f"P{process} dies while invalidating {version}", new

    @done_by(
        "tiercache.invalidation.Invalidation._pass",
        "tiercache.invalidation.Invalidation.remember",
    )
    def miss_a_tier(self, world: World, number: int, stage: Stage) -> Steps:
        """Do what can be done without the tier, say so, and remember the rest."""
        version, process = number + 1, self.scenario.writers[number]
        new = world.clone()
        self.use(new, "l2" if stage == "L2" else "l3")
        if stage == "L3":
            self.invalidate(new, "L2", version, process)
        if stage == "L3" or self.scenario.bus_apart:
            self.invalidate(new, "BUS", version, process, INCOMPLETE)
        self.void_l1(new, process)
        new.set_process(
            process,
            pending=version if self.rules.bypass else 0,
            handled=max(new.processes[process].handled, version),
        )
        new.set_writer(number, at="done", stage=0)
        yield f"W{version}: {stage} unreachable; L1 void, kept for later, block returns", new
