"""The private servers do what the tests believe of them."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from tests.servers.pgbouncer import PgBouncer
from tests.servers.ports import free_port
from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerFailed, find_program
from tests.servers.reaper import alive, children
from tests.servers.redis import RedisServer


def test_redis_starts_empty_and_takes_settings() -> None:
    """A private Redis answers on its port, holds nothing and has the settings asked for."""
    with RedisServer(maxmemory="3mb", maxmemory_policy="allkeys-lru") as server:
        assert server.url == f"redis://127.0.0.1:{server.port}/0"
        assert server.cli("DBSIZE") == 0
        assert server.cli("CONFIG", "GET", "maxmemory")["maxmemory"] == str(3 * 1024 * 1024)
        assert server.cli("CONFIG", "GET", "save")["save"] == ""


def test_redis_forgets_everything_at_a_restart(private_redis: RedisServer) -> None:
    """A restarted Redis is empty and on the same port."""
    port, pid = private_redis.port, private_redis.pid
    private_redis.cli("SET", "key", "value")
    private_redis.restart()
    assert (private_redis.port, private_redis.cli("DBSIZE")) == (port, 0)
    assert private_redis.pid != pid


def test_a_killed_redis_comes_back(private_redis: RedisServer) -> None:
    """After `kill` nobody listens; after `start` the same port answers."""
    private_redis.kill()
    assert not private_redis.running
    with pytest.raises(redis.ConnectionError):
        private_redis.cli("PING")
    private_redis.start()
    assert private_redis.cli("PING")


def test_a_paused_redis_is_silent_until_resumed(private_redis: RedisServer) -> None:
    """A paused Redis accepts a connection and never answers; resumed, it answers what was asked."""
    private_redis.pause()
    with socket.create_connection(("127.0.0.1", private_redis.port), timeout=0.1) as client:
        client.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            client.recv(16)
        private_redis.resume()
        client.settimeout(5)
        assert client.recv(16) == b"+PONG\r\n"


def test_a_paused_server_can_be_closed() -> None:
    """Closing ends a frozen server and removes its folder."""
    with RedisServer() as server:
        pid = server.pid
        server.pause()
    assert not alive(pid)
    assert not server.folder.exists()


def test_the_shared_redis_is_emptied(redis_url: str, redis_server: RedisServer) -> None:
    """`redis_url` leads to the shared server with nothing in it."""
    assert redis_url == redis_server.url
    assert redis_server.cli("DBSIZE") == 0


def test_a_taken_port_is_given_up() -> None:
    """A server that finds its port taken starts on another one."""
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", free_port()))
        squatter.listen()
        server = RedisServer()
        server.port = taken = squatter.getsockname()[1]
        with server:
            assert server.port != taken
            assert server.cli("PING")


def test_a_refused_setting_shows_the_log() -> None:
    """A server that cannot start says why, in its own words."""
    with pytest.raises(ServerFailed, match="maxmemory"), RedisServer(maxmemory="nonsense"):
        pass


def test_a_missing_program_says_what_to_install() -> None:
    """The error for an absent program names the package."""
    with pytest.raises(ServerFailed, match="apt-get install some-package"):
        find_program("no-such-server", "some-package")


def test_every_test_gets_its_own_database(
    postgres_server: PostgresServer, postgres_dsn: str
) -> None:
    """`postgres_dsn` is a new, empty database, and two of them do not see each other."""
    other = postgres_server.create_database()
    postgres_server.psql("CREATE TABLE here (id int)", postgres_dsn)
    count = "SELECT count(*) FROM pg_tables WHERE tablename = 'here'"
    assert postgres_server.psql(count, postgres_dsn) == "1"
    assert postgres_server.psql(count, other) == "0"
    postgres_server.drop_database(other)
    with pytest.raises(ServerFailed, match="does not exist"):
        postgres_server.psql("SELECT 1", other)


def test_postgres_survives_kill_and_pause(private_postgres: PostgresServer) -> None:
    """Committed rows outlive a crash; a paused server and its children are all frozen."""
    server = private_postgres
    server.psql("CREATE TABLE t AS SELECT 42 AS x")
    server.kill()
    assert not server.running
    server.start()
    assert server.psql("SELECT x FROM t") == "42"

    server.pause()
    family = [server.pid, *children(server.pid)]
    assert len(family) > 1
    assert {_state(pid) for pid in family} == {"T"}
    server.resume()
    assert server.psql("SELECT x FROM t") == "42"


def test_postgres_takes_settings_and_restarts() -> None:
    """Settings reach the server and hold after a restart on the same port."""
    with PostgresServer(max_connections=17) as server:
        port = server.port
        server.restart()
        assert server.port == port
        assert server.psql("SHOW max_connections") == "17"


def test_a_standby_follows_and_is_promoted(private_postgres: PostgresServer) -> None:
    """A standby has the primary's rows, refuses writes, and takes them once promoted."""
    primary = private_postgres
    primary.psql("CREATE TABLE t (x int)")
    with primary.standby() as standby:
        primary.psql("INSERT INTO t VALUES (1)")
        standby.catch_up()
        assert standby.psql("SELECT x FROM t") == "1"
        with pytest.raises(ServerFailed, match="read-only"):
            standby.psql("INSERT INTO t VALUES (2)")
        primary.kill()
        standby.promote()
        standby.psql("INSERT INTO t VALUES (2)")
        assert standby.psql("SELECT count(*) FROM t") == "2"


def test_pgbouncer_leads_to_every_database(
    pgbouncer: PgBouncer, pgbouncer_dsn: str, postgres_server: PostgresServer, postgres_dsn: str
) -> None:
    """What is written through it is in the database of the same name, and it is not run by root."""
    postgres_server.psql("CREATE TABLE t AS SELECT 42 AS x", pgbouncer_dsn)
    assert postgres_server.psql("SELECT x FROM t", postgres_dsn) == "42"
    assert pgbouncer.version >= (1, 8)
    assert pgbouncer.admin("SHOW VERSION").startswith("PgBouncer")
    assert Path(f"/proc/{pgbouncer.pid}").stat().st_uid != 0


def test_pgbouncer_takes_settings_and_comes_back(
    postgres_server: PostgresServer, postgres_dsn: str
) -> None:
    """Settings reach it; after `kill` nobody listens, after `start` the same port answers."""
    with PgBouncer(postgres_server, "session", 3, max_client_conn=17) as server:
        config = server.admin("SHOW CONFIG").splitlines()
        assert [
            line.split("|")[1]
            for line in config
            if line.split("|")[0] in ("default_pool_size", "max_client_conn", "pool_mode")
        ] == ["3", "17", "session"]
        dsn = server.through(postgres_dsn)
        server.kill()
        with pytest.raises(ServerFailed, match="refused"):
            postgres_server.psql("SELECT 1", dsn)
        server.start()
        assert postgres_server.psql("SELECT 1", dsn) == "1"


def test_pgbouncer_gives_up_a_taken_port(postgres_server: PostgresServer) -> None:
    """It starts on another port when its own is taken."""
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", free_port()))
        squatter.listen()
        server = PgBouncer(postgres_server)
        server.port = taken = squatter.getsockname()[1]
        with server:
            assert server.port != taken
            assert server.admin("SHOW VERSION")


def test_pgbouncer_says_what_it_refuses(postgres_server: PostgresServer) -> None:
    """With a setting that it does not take it does not start, and says which."""
    with (
        pytest.raises(ServerFailed, match="nonsense"),
        PgBouncer(postgres_server, pool_mode="nonsense"),
    ):
        pass


def test_nothing_outlives_a_killed_test_run() -> None:
    """Servers end, frozen ones too, and folders go when the process that started them is killed."""
    program = (
        "from tests.servers.redis import RedisServer\n"
        "server = RedisServer().start()\n"
        "server.pause()\n"
        "print(server.pid, server.folder, flush=True)\n"
        "input()\n"
    )
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": root},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        pid, folder = run.stdout.readline().split()
        assert alive(int(pid))
        run.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (alive(int(pid)) or Path(folder).exists()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(int(pid))
    assert not Path(folder).exists()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
