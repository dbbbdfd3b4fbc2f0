"""What triggers do in every database, as a suite.

Subclass `TriggerContract` in a test module that has a fixture ``there``.
"""

from __future__ import annotations

import pytest

from tests.tiercache._sql.watching import Watching
from tiercache._sql.triggers import watched as versions


class TriggerContract:
    """Triggers upon a table of users: ``id``, ``name`` and ``tenant``."""

    replacing: int
    """Statements that replace what an earlier version has put there."""
    removing: int
    """Statements that take it away."""

    async def test_a_rollback_writes_nothing(self, there: Watching) -> None:
        """The row is part of the transaction that changed the table."""
        await there.watch("users", "user:{id}")
        with pytest.raises(ZeroDivisionError):
            async with there.pool.transaction() as tx:
                await tx.execute("INSERT INTO users VALUES (1, 'a', 'x')")
                raise ZeroDivisionError
        assert await there.bodies() == []

    async def test_an_empty_text_is_no_tag(self, there: Watching) -> None:
        """A template that comes out empty names nothing."""
        await there.watch("users", "{name}")
        await there.pool.execute("INSERT INTO users VALUES (1, '', 'x')")
        assert await there.bodies() == []

    async def test_versions(self, there: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
        """A later version replaces what an earlier one has written, and is not replaced by it."""
        await there.watch("users", "user:{id}")
        monkeypatch.setattr(versions, "VERSION", 2)
        assert len(await there.watch("users", "user:{id}")) == self.replacing
        monkeypatch.setattr(versions, "VERSION", 1)
        assert await there.missing("users", "user:{id}") == ()
        assert len(await there.missing("users", "other:{id}")) == self.replacing

    async def test_caches_of_other_names_do_not_meet(self, there: Watching) -> None:
        """Two caches watch one table, and one of them stops."""
        await there.watch("users", "user:{id}", name="one")
        await there.watch("users", "u:{id}", name="two")
        await there.pool.execute("INSERT INTO users VALUES (1, 'a', 'x')")
        assert await there.names() == ["u:1", "user:1"]
        assert len(await there.unwatch("Users", "one")) == self.removing
        assert await there.unwatch("users", "one") == ()
        await there.pool.execute("UPDATE users SET name = 'b'")
        assert await there.names() == ["u:1"]
