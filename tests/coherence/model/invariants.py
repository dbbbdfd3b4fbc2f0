"""What must hold in every state."""

from __future__ import annotations

from tests.coherence.model.protocol import Protocol, Violation
from tests.coherence.model.state import World


class Invariants(Protocol):
    """Holds one state to the invariants of one scenario."""

    def check(self, world: World) -> None:
        """Raise `Violation` for what no reader may ever find."""
        l2 = self.readable_l2(world)
        l3 = self.readable_l3(world) if self.scenario.l3 else None
        settled = not self._is_busy(world)
        for name, version in (("L2", l2), ("L3", l3)):
            if version is None:
                continue
            if not (world.committed >> version) & 1:
                raise Violation(f"uncommitted value {version} stored in {name}")
            if version < world.acknowledged:
                raise Violation(
                    f"{name} serves {version} after the invalidation of "
                    f"{world.acknowledged} returned"
                )
            if settled and version < world.db:
                raise Violation(f"settled, but {name} serves {version}, database {world.db}")
        for number, process in enumerate(world.processes):
            if process.alive and process.l1 is not None:
                self._check_l1(world, number, settled)

    def _check_l1(self, world: World, number: int, settled: bool) -> None:
        process = world.processes[number]
        held = process.l1
        assert held is not None
        if not (world.committed >> held) & 1:
            raise Violation(f"uncommitted value {held} stored in L1 of {number}")
        if held < process.handled:
            raise Violation(
                f"L1 of {number} holds {held} after it handled the event of {process.handled}"
            )
        if not process.connected or process.cursor != len(world.log):
            return
        if process.stream != world.stream:
            return
        if not process.late and held < world.published[number]:
            raise Violation(
                f"L1 of {number} is up to date with its bus, holds {held}, others published "
                f"{world.published[number]}"
            )
        if settled and held < world.db:
            raise Violation(f"settled, but L1 of {number} holds {held}, database {world.db}")

    def _is_busy(self, world: World) -> bool:
        return (
            bool(world.outbox)
            or any(world.relays)
            or any(
                writer.at in ("tx", "marked", "inv", "unknown") or writer.late
                for writer in world.writers
            )
        )
