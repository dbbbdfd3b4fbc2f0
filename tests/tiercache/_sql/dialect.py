"""What every dialect promises, as a suite that runs over any of them.

Subclass `DialectContract` in a test module that has the fixtures ``dialect``, ``bare`` (a
connection to an empty database) and ``run`` (one to a database with the schema in it).
"""

from __future__ import annotations

from tests.tiercache._sql.programs import Run, lease, load, readable, value
from tiercache._sql.program import START, VERSION, Dialect, Replacement


class DialectContract:
    """What the statements do, whatever the database."""

    async def written(self, run: Run) -> tuple[float, ...]:
        """Return when the tag ``t`` ends, and what else tells that its row was written."""
        raise NotImplementedError

    async def test_the_version_is_none_until_the_schema_is_there(
        self, bare: Run, dialect: Dialect
    ) -> None:
        """An empty database has no version; a schema made twice has the one it was made with."""
        assert await bare(dialect.version()) is None
        await bare(dialect.create())
        await bare(dialect.create())
        assert await bare(dialect.version()) == VERSION

    async def test_a_name_as_long_as_an_index_allows_is_found(
        self, run: Run, dialect: Dialect
    ) -> None:
        """Keys and tags of the greatest folded length are stored and read."""
        key, tag = "k" * 512, "t" * 512
        assert await load(run, dialect, key, tag) == [key]
        assert await readable(run, dialect, key) == [key]

    async def test_what_is_over_reads_as_nothing(self, run: Run, dialect: Dialect) -> None:
        """A value past its ttl is not read, a lease past its ttl cannot be filled."""
        await load(run, dialect, "value", ttl=-1.0)
        assert await readable(run, dialect, "value") == []
        tokens = await lease(run, dialect, "lease", ttl=-1.0)
        fill = dialect.fill("app", [], [Replacement("lease", value("lease", tokens))])
        assert await run(fill) == {}

    async def test_a_fill_upon_a_dead_tag_is_refused(self, run: Run, dialect: Dialect) -> None:
        """What nobody could read is not written: the lease stays what it was."""
        tokens = await lease(run, dialect, "a", "t")
        await run(dialect.delete_tags("app", ["t"]))
        fill = dialect.fill("app", ["t"], [Replacement("a", value("a", tokens))])
        assert await run(fill) == {}
        await lease(run, dialect, "b", "t")
        fill = dialect.fill("app", ["t"], [Replacement("a", value("a", tokens))])
        assert await run(fill) == {}

    async def test_a_tag_lives_as_long_as_its_entries(self, run: Run, dialect: Dialect) -> None:
        """A fill extends its tags ahead; a second one within that time writes nothing."""
        await load(run, dialect, "a", "t", ttl=10.0)
        first = await self.written(run)
        await load(run, dialect, "a", "t", ttl=86400.0)
        second = await self.written(run)
        assert second[0] - first[0] > 86400.0
        await load(run, dialect, "b", "t", ttl=86400.0)
        assert await self.written(run) == second
        await load(run, dialect, "c", "t", ttl=None)
        assert (await self.written(run))[0] == float("inf")

    async def test_expire_deletes_what_is_over_in_batches(self, run: Run, dialect: Dialect) -> None:
        """Values, leases and tags past their time go, so many at a time; the others stay."""
        for n in range(3):
            await load(run, dialect, f"over {n}", ttl=-1.0)
        await lease(run, dialect, "lease", "tag", ttl=-4000.0)
        await load(run, dialect, "good")
        assert await run(dialect.expire(2)) == 2
        assert await run(dialect.expire(100)) == 3
        assert await run(dialect.expire(100)) == 0
        assert await readable(run, dialect, "good") == ["good"]

    async def test_sweep_deletes_what_nobody_can_read(self, run: Run, dialect: Dialect) -> None:
        """Values of a dead tag go, window by window; leases and readable values stay."""
        for n in range(5):
            await load(run, dialect, f"k{n}", "dead" if n % 2 else "alive")
        await lease(run, dialect, "lease")
        await run(dialect.delete_tags("app", ["dead"]))
        at, deleted, steps = START, 0, 0
        while True:
            swept = await run(dialect.sweep(at, 2))
            at, deleted, steps = swept.at, deleted + swept.deleted, steps + 1
            if at == START:
                break
        assert deleted == 2
        assert steps >= 3
        left = await run.rows("SELECT key FROM tiercache_entry ORDER BY key")
        assert [row[0] for row in left] == ["k0", "k2", "k4", "lease"]

    async def test_sweep_deletes_the_values_of_a_cleared_namespace(
        self, run: Run, dialect: Dialect
    ) -> None:
        """Without the run token of its namespace no value can be read."""
        await load(run, dialect, "a", ttl=None)
        await run(dialect.delete_tags("app", [""]))
        assert (await run(dialect.sweep(START, 10))).deleted == 1
