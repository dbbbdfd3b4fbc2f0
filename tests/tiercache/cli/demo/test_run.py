"""The demo as people run it: the figures, what it leaves behind, and how it ends early."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers.redis import RedisServer

COMMAND = [sys.executable, "-m", "tiercache", "demo"]
TIMEOUT = 50


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment without servers, whose temporary folder is the test's."""
    ours = ("REDIS_URL", "DATABASE_URL")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return {**kept, "TMPDIR": str(tmp_path)}


def figures_of(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    """Run it for a second and return its figures."""
    done = subprocess.run(
        [*COMMAND, "--seconds", "1", "--json", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr or done.stdout
    # A busy machine may keep Redis from answering in time: said so, and survived.
    said = [line for line in done.stderr.splitlines() if "until it answers again" not in line]
    assert said == []
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def assert_sound(figures: dict[str, Any]) -> None:
    """Check what has to hold whatever the tiers are."""
    assert figures["sound"] is True
    assert figures["interrupted"] is False
    assert figures["checked"]["reads"] > 100
    assert (figures["checked"]["stale"], figures["checked"]["uncommitted"]) == (0, 0)
    assert figures["transactions"]["committed"] > 0
    assert 0 < figures["hit_ratio"] < 1
    assert figures["requests"] == sum(figures["hits"].values()) + figures["misses"]
    assert figures["stampede"]["loads"] <= figures["processes"]
    assert figures["stampede"]["saved"] >= 99 * figures["processes"]
    commit, rollback = figures["commit"], figures["rollback"]
    assert {commit["seen"], *commit["seen_by_workers"]} == {"Zoe"}
    assert len(commit["seen_by_workers"]) == figures["processes"] - 1
    assert rollback["seen"] == rollback["kept"] == "Zoe"
    assert (rollback["loads"], rollback["invalidations"]) == (0, 0)
    for name in ("get_or_load", "load", "invalidate", "transaction"):
        assert any(span.startswith(f"{name} ") for span in figures["spans"]), name
    names = [name for _, name, _ in commit["trace"]]
    assert names[0] == "rename a user"
    assert "transaction shop (commit)" in names
    metrics = figures["metrics"]
    assert metrics["tiercache.requests{hit,l1}"] > 0
    assert metrics["poolkit.transaction.duration{commit}"] >= figures["transactions"]["committed"]
    for latency in figures["latency_seconds"].values():
        assert 0 < latency["p50"] <= latency["p99"]


def test_embedded(environment: dict[str, str], tmp_path: Path) -> None:
    """Without servers: memory and SQLite answer, all promises hold, no file is left."""
    figures = figures_of(environment)
    assert_sound(figures)
    assert figures["processes"] == 3
    assert list(figures["tiers"]) == ["l1", "l3"]
    assert figures["hits"]["l1"] > 0
    assert figures["hits"]["l3"] > 0
    assert figures["hits"]["l2"] == 0
    assert figures["recovery"] is None
    assert {"l1", "l3", "loaded", "query"} <= figures["latency_seconds"].keys()
    assert list(tmp_path.iterdir()) == []


def test_on_servers(
    environment: dict[str, str], private_redis: RedisServer, postgres_dsn: str, tmp_path: Path
) -> None:
    """With Redis and PostgreSQL all three tiers answer, and nothing is left that stays."""
    environment |= {"REDIS_URL": private_redis.url, "DATABASE_URL": postgres_dsn}
    figures = figures_of(environment)
    assert_sound(figures)
    assert list(figures["tiers"]) == ["l1", "l2", "l3"]
    assert figures["hits"]["l1"] > 0
    assert figures["hits"]["l2"] > 0
    assert figures["recovery"] == {"lost": 50, "found_in_l3": 50, "holds": True}
    left = {key: private_redis.cli("TTL", key) for key in private_redis.cli("KEYS", "*")}
    assert left
    assert -1 not in left.values(), left  # one that has run out meanwhile has -2
    assert schemas_of(postgres_dsn) == ["public"]
    assert list(tmp_path.iterdir()) == []


def schemas_of(dsn: str) -> list[str]:
    """Return the schemas of a database that are not PostgreSQL's own."""
    import asyncio

    from poolkit import Pool

    async def names() -> list[str]:
        async with Pool(dsn, max_size=1) as pool:
            rows = await pool.fetch(
                "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema$'"
            )
            return [row[0] for row in rows]

    return asyncio.run(names())


def test_alone(environment: dict[str, str]) -> None:
    """Without other processes everything holds too."""
    figures = figures_of(environment, "--processes", "0", "--readers", "4")
    assert_sound(figures)
    assert figures["processes"] == 1


def test_where_there_is_no_terminal_it_prints_lines(environment: dict[str, str]) -> None:
    """In a pipe progress is lines without escape sequences, and the report is in words."""
    done = subprocess.run(
        [*COMMAND, "--seconds", "1", "--processes", "0"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr or done.stdout
    assert "\x1b" not in done.stdout
    assert "stale reads 0" in done.stdout
    for word in ("stampede", "commit", "rollback", "under load", "spans recorded", "one trace"):
        assert word in done.stdout


def test_a_terminal_sees_a_live_table(environment: dict[str, str]) -> None:
    """In a terminal the table is redrawn in place."""
    ours, theirs = pty.openpty()
    environment |= {"TERM": "xterm", "COLUMNS": "120", "LINES": "50"}
    with subprocess.Popen(
        [*COMMAND, "--seconds", "1", "--processes", "0"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(theirs)
        seen = b""
        try:
            while piece := os.read(ours, 65_536):
                seen += piece
        except OSError:  # Linux says so when the last one has closed the other end
            pass
        finally:
            os.close(ours)
        assert process.wait(TIMEOUT) == 0, process.stderr and process.stderr.read()
    assert seen.count(b"answered by") > 2  # several pictures and the report
    assert b"\x1b[1A" in seen  # the cursor goes up again


def test_an_interrupt_ends_it_with_the_figures_so_far(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Ctrl-C during the load prints the report, cleans up and is no failure."""
    with subprocess.Popen(
        [*COMMAND, "--seconds", "600", "--processes", "1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "/ 600 s" in line:  # the load has begun
                break
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (0, "")
    assert "(interrupted)" in output
    assert "under load" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("REDIS_URL", "redis://:secret@127.0.0.1:1/0"),
        ("REDIS_URL", "http://127.0.0.1:1"),
        ("DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/app"),
        ("DATABASE_URL", "mysql://127.0.0.1:1/app"),
    ],
)
def test_a_server_that_cannot_be_used_is_named(
    environment: dict[str, str], name: str, url: str, tmp_path: Path
) -> None:
    """It says which variable is wrong and how to go without it, shows no password, exits with 1."""
    done = subprocess.run(
        [*COMMAND, "--seconds", "1", "--json"],
        env={**environment, name: url},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"The demo cannot run: {name}")
    assert f"unset it to run {'without L2' if name == 'REDIS_URL' else 'on SQLite'}" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
