"""Which jobs share a round, and which must not."""

import asyncio
import sqlite3
import threading
from typing import Any

from poolkit.drivers._crew import Crew, Job


class Recorder:
    """A kind of work whose rounds note when they begin and end."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def begin(self, several: bool) -> "Recorder.Noted":
        """Note it."""
        self.log.append("begin several" if several else "begin")
        return Recorder.Noted(self.log)

    class Noted:
        """One round."""

        def __init__(self, log: list[str]) -> None:
            self.log = log

        def end(self) -> None:
            """Note it."""
            self.log.append("end")


def its_round(job: Job) -> Any:
    """Return the round that a job was done in."""
    return job.round


async def test_what_is_asked_for_later_gets_a_new_round() -> None:
    """A round serves what was submitted before it began, in one go, and nothing that came after."""
    crew = Crew(asyncio.get_running_loop(), limit=1, name="test")
    rounds, started, go_on = Recorder(), threading.Event(), threading.Event()

    def block(job: Job) -> Any:
        started.set()
        assert go_on.wait(10)
        return job.round

    first = crew.submit(block, rounds=rounds)
    assert await asyncio.to_thread(started.wait, 10)
    later = [crew.submit(its_round, rounds=rounds) for _ in range(3)]
    go_on.set()
    async with asyncio.timeout(10):
        alone, *shared = await asyncio.gather(*(job.future for job in (first, *later)))
    assert shared[0] is shared[1] is shared[2]
    assert shared[0] is not alone
    assert rounds.log == ["begin", "end", "begin several", "end"]
    for thread in crew.dismiss():
        await asyncio.to_thread(thread.join, 10)


async def test_other_work_ends_a_round() -> None:
    """Work of another kind never runs inside a round; what follows it gets a new one."""
    crew = Crew(asyncio.get_running_loop(), limit=1, name="test")
    rounds = Recorder()
    jobs = [
        crew.submit(its_round, rounds=rounds),
        crew.submit(lambda job: rounds.log.append("other")),
        crew.submit(its_round, rounds=rounds),
    ]
    async with asyncio.timeout(10):
        before, _, after = await asyncio.gather(*(job.future for job in jobs))
    assert before is not after
    at = rounds.log.index("other")
    assert rounds.log[:at].count("end") == 1
    assert [each.split()[0] for each in rounds.log] == ["begin", "end", "other", "begin", "end"]
    for thread in crew.dismiss():
        await asyncio.to_thread(thread.join, 10)


async def test_a_round_that_cannot_begin_is_told_to_the_one_who_asked() -> None:
    """The error of beginning is that of the job; the thread goes on with the next."""

    class Broken:
        def begin(self, several: bool) -> Any:
            raise sqlite3.OperationalError("unable to open database file")

    crew = Crew(asyncio.get_running_loop(), limit=1, name="test")
    failing = crew.submit(its_round, rounds=Broken())
    next_one = crew.submit(lambda job: "done")
    async with asyncio.timeout(10):
        results = await asyncio.gather(failing.future, next_one.future, return_exceptions=True)
    assert isinstance(results[0], sqlite3.OperationalError)
    assert results[1] == "done"
    for thread in crew.dismiss():
        await asyncio.to_thread(thread.join, 10)
