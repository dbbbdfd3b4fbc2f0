"""A program of forty lines on real servers, run once for each thing that a user would see."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

PROGRAM = Path(__file__).with_name("forty_lines.py")


@pytest.fixture
def run(redis_url: str, postgres_dsn: str, postgres_server: PostgresServer) -> Any:
    """Run the program on a table of one user; return what it printed, line by line."""
    postgres_server.psql("CREATE TABLE users (id int PRIMARY KEY, name text)", postgres_dsn)
    postgres_server.psql("INSERT INTO users VALUES (1, 'ada')", postgres_dsn)

    def run(*changes: str) -> list[Any]:
        done = subprocess.run(
            [sys.executable, PROGRAM, redis_url, postgres_dsn, *changes],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_it_is_forty_lines() -> None:
    """The program is as short as it says, and uses public names alone."""
    lines = [line for line in PROGRAM.read_text().splitlines() if line.strip()]
    assert len(lines) <= 40
    assert not [line for line in lines if "._" in line]


def test_hits_on_every_tier(run: Any, redis_server: RedisServer) -> None:
    """The first process loads, the second reads L2, and after FLUSHALL a third reads L3."""
    values = ["ada", "ada", "ADA", "ADA"]
    assert run() == [[values, {"l1": 2, "l2": 0, "l3": 0}, 2]]
    assert run() == [[values, {"l1": 2, "l2": 2, "l3": 0}, 0]]
    redis_server.cli("FLUSHALL")
    assert run() == [[values, {"l1": 2, "l2": 0, "l3": 2}, 0]]
    assert run() == [[values, {"l1": 2, "l2": 2, "l3": 0}, 0]]


def test_every_way_to_invalidate(run: Any) -> None:
    """Key, tag, event and commit each make both functions load anew; nothing else does."""
    printed = run("unsaid", "key", "tag", "event", "commit")
    assert [values for values, _, _ in printed] == [
        [name, name, name.upper(), name.upper()]
        for name in ("ada", "ada", "key", "tag", "event", "commit")
    ]
    assert [loads for _, _, loads in printed] == [2, 2, 4, 6, 8, 10]
    [[values, hits, loads]] = run()
    assert values == ["commit", "commit", "COMMIT", "COMMIT"]
    assert (hits["l2"], loads) == (2, 0)
