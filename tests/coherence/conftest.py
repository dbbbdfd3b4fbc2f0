"""Sites for the schedules."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.coherence.plan import Plan
from tests.coherence.sites import EVERY, SITES, Site, site
from tests.servers.postgres import PostgresServer


@pytest.fixture(scope="module")
def races_dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """The DSN of a database for all schedules of a module; each has caches of its own name."""
    dsn = postgres_server.create_database()
    yield dsn
    postgres_server.drop_database(dsn)


@pytest.fixture(params=EVERY)
def plan(request: pytest.FixtureRequest, tmp_path: Path) -> Plan:
    """Each site in turn, or those that the test names."""
    chosen = SITES[request.param]
    if chosen.database == "postgres":
        dsn = request.getfixturevalue("races_dsn")
    else:
        dsn = f"sqlite:///{tmp_path}/races.db"
    redis = request.getfixturevalue("redis_server").url if chosen.l2 else ""
    return chosen.at(dsn=dsn, redis=redis, bus_timeout=3.0)


@pytest.fixture
async def place(plan: Plan) -> AsyncIterator[Site]:
    """The site, open."""
    async with site(plan) as found:
        yield found
