"""What is promised, tried once each while the load goes on, with what was seen."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tiercache.cli.demo.recorder import Recorder
from tiercache.cli.demo.service import Declined, Shop, User
from tiercache.cli.demo.settings import COLD_USER, CROWD, LOST_USERS, PROOF_USER
from tiercache.cli.demo.site import Site
from tiercache.cli.demo.workers import Workers


@dataclass(frozen=True, slots=True)
class Stampede:
    """Many callers asked for one user that no tier had, in all processes at once."""

    callers: int
    processes: int
    loads: int

    @property
    def saved(self) -> int:
        """Loads that single flight, or a tier that had been filled meanwhile, made needless."""
        return self.callers - self.loads

    @property
    def holds(self) -> bool:
        """At most one load in each process."""
        return self.loads <= self.processes


@dataclass(frozen=True, slots=True)
class Commit:
    """A rename that committed: what was read next, here and in the other processes."""

    user: int
    before: str
    after: str
    seen: str
    seen_by_workers: list[str]
    reads_by_workers: list[int]
    """How many reads each needed until it saw it."""
    trace: list[tuple[int, str, float]]
    """Its spans: depth, name, seconds."""

    @property
    def holds(self) -> bool:
        """Everybody saw the new name."""
        return {self.seen, *self.seen_by_workers} == {self.after}


@dataclass(frozen=True, slots=True)
class Rollback:
    """A rename that rolled back: what was read next, and what that cost."""

    user: int
    kept: str
    attempted: str
    seen: str
    loads: int
    invalidations: int

    @property
    def holds(self) -> bool:
        """The cache kept what it had."""
        return self.seen == self.kept and self.loads == 0 and self.invalidations == 0


@dataclass(frozen=True, slots=True)
class Recovery:
    """L2 lost entries: where a cache that had none of them in memory found them."""

    lost: int
    found_in_l3: int

    @property
    def holds(self) -> bool:
        """None had to be loaded again."""
        return self.found_in_l3 == self.lost


@dataclass(slots=True)
class Proofs:
    """What has been tried so far."""

    stampede: Stampede | None = None
    commit: Commit | None = None
    rollback: Rollback | None = None
    recovery: Recovery | None = None
    """Where there is an L2."""

    @property
    def hold(self) -> bool:
        """Whether all that were tried do."""
        tried = (self.stampede, self.commit, self.rollback, self.recovery)
        return all(proof is None or proof.holds for proof in tried)


async def prove(
    proofs: Proofs, site: Site, shop: Shop, workers: Workers, recorder: Recorder
) -> None:
    """Try all of them, one after the other."""
    proofs.stampede = await _stampede(shop, workers)
    proofs.commit = await _commit(shop, workers, recorder)
    proofs.rollback = await _rollback(shop, recorder)
    if site.redis is not None:
        proofs.recovery = await _recovery(site, shop)


async def _stampede(shop: Shop, workers: Workers) -> Stampede:
    elsewhere = asyncio.create_task(workers.ask("crowd", user=COLD_USER, callers=CROWD))
    await asyncio.gather(*(shop.get_user(COLD_USER) for _ in range(CROWD)))
    loads = shop.loaded[COLD_USER] + sum(answer["loads"] for answer in await elsewhere)
    processes = 1 + len(workers)
    return Stampede(CROWD * processes, processes, loads)


async def _commit(shop: Shop, workers: Workers, recorder: Recorder) -> Commit:
    before = await shop.get_user(PROOF_USER)
    await workers.ask("user", user=PROOF_USER, version=before.version)  # now everybody has it
    after = "Zoe"
    with recorder.tracer.start_as_current_span("rename a user") as span:
        trace = span.get_span_context().trace_id
        recorder.follow(trace)
        version = await shop.rename_user(PROOF_USER, after)
        seen = await shop.get_user(PROOF_USER)
    answers = await workers.ask("user", user=PROOF_USER, version=version)
    return Commit(
        user=PROOF_USER,
        before=before.name,
        after=after,
        seen=seen.name,
        seen_by_workers=[answer["name"] for answer in answers],
        reads_by_workers=[answer["reads"] for answer in answers],
        trace=recorder.trace(trace),
    )


async def _rollback(shop: Shop, recorder: Recorder) -> Rollback:
    kept = (await shop.get_user(PROOF_USER)).name
    attempted = "Max"
    loads = shop.loaded[PROOF_USER]
    with recorder.tracer.start_as_current_span("rename a user, in vain") as span:
        trace = span.get_span_context().trace_id
        recorder.follow(trace)
        try:
            await shop.rename_user(PROOF_USER, attempted, declined=True)
        except Declined:
            pass
        seen = await shop.get_user(PROOF_USER)
    return Rollback(
        user=PROOF_USER,
        kept=kept,
        attempted=attempted,
        seen=seen.name,
        loads=shop.loaded[PROOF_USER] - loads,
        invalidations=sum(name.startswith("invalidate") for _, name, _ in recorder.trace(trace)),
    )


async def _recovery(site: Site, shop: Shop) -> Recovery:
    await asyncio.gather(*map(shop.get_user, LOST_USERS))  # now every tier has them
    keys = [shop.get_user.key(user_id) for user_id in LOST_USERS]
    await site.lose(keys)
    async with site.cache(shop.pool, entries=None) as other:
        for key in keys:
            await other.get(key, type=User)
        return Recovery(len(keys), other.stats().hits["l3"])
