"""The service that `app_load.py` puts under load: sessions of a contact centre on PostgreSQL.

Run by uvicorn; the environment says which cache it has (``CACHE``), and where PostgreSQL and Redis
are. An update of a session's context reads the session, its customer and its tenant first; a
handoff to another agent reads the context too. Every write invalidates what it has changed, once it
is committed, for all processes.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

from fastapi import FastAPI, HTTPException, Request

from poolkit import Pool, Transaction

TTL = 600
CONNECTIONS = 10
SESSIONS, TENANTS, CUSTOMERS, AGENTS = 10_000, 50, 5_000, 500

SCHEMA = f"""
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL, longest_context int NOT NULL);
CREATE TABLE agents (id int PRIMARY KEY, tenant_id int NOT NULL, name text NOT NULL, skills text[]);
CREATE TABLE customers (id int PRIMARY KEY, tenant_id int NOT NULL, name text NOT NULL, level int);
CREATE TABLE sessions (id serial PRIMARY KEY, tenant_id int NOT NULL, customer_id int NOT NULL,
    agent_id int, status text NOT NULL, created timestamptz NOT NULL DEFAULT now());
CREATE TABLE contexts (session_id int PRIMARY KEY, version int NOT NULL, body text NOT NULL);
CREATE TABLE handoffs (id bigserial PRIMARY KEY, session_id int NOT NULL, agent_id int NOT NULL);
INSERT INTO tenants SELECT i, 'tenant ' || i, 4096 FROM generate_series(1, {TENANTS}) i;
INSERT INTO agents SELECT i, i % {TENANTS} + 1, 'agent ' || i, ARRAY['chat', 'voice']
    FROM generate_series(1, {AGENTS}) i;
INSERT INTO customers SELECT i, i % {TENANTS} + 1, 'customer ' || i, i % 4
    FROM generate_series(1, {CUSTOMERS}) i;
INSERT INTO sessions (tenant_id, customer_id, agent_id, status)
    SELECT i % {TENANTS} + 1, i % {CUSTOMERS} + 1, i % {AGENTS} + 1, 'open'
    FROM generate_series(1, {SESSIONS}) i;
INSERT INTO contexts SELECT i, 1, repeat('context ', 20) FROM generate_series(1, {SESSIONS}) i;
"""

READS = {
    "session": "SELECT id, tenant_id, customer_id, agent_id, status FROM sessions WHERE id = $1",
    "context": "SELECT session_id, version, body FROM contexts WHERE session_id = $1",
    "customer": "SELECT id, tenant_id, name, level FROM customers WHERE id = $1",
    "tenant": "SELECT id, name, longest_context FROM tenants WHERE id = $1",
    "agent": "SELECT id, tenant_id, name, skills FROM agents WHERE id = $1",
}

Row = dict[str, Any]
Read = Callable[[int], Awaitable[Row | None]]


class Caching(Protocol):
    """What a cache does for the service."""

    def cached(self, kind: str, load: Read) -> Read:
        """Return a reader that keeps what the loader returns under ``kind:number``."""
        ...

    async def changed(self, keys: list[str]) -> None:
        """Hear, inside the transaction, what it changes."""
        ...

    async def committed(self, keys: list[str]) -> None:
        """Hear the same after the commit."""
        ...

    async def aclose(self) -> None:
        """Close."""
        ...


class Uncached:
    """No cache."""

    def cached(self, kind: str, load: Read) -> Read:
        return load

    async def changed(self, keys: list[str]) -> None:
        pass

    async def committed(self, keys: list[str]) -> None:
        pass

    async def aclose(self) -> None:
        pass


class Tiercache(Uncached):
    """L1, Redis and, where asked for, PostgreSQL; invalidations belong to the transaction."""

    def __init__(self, pool: Pool, redis: str, *, in_database: bool) -> None:
        from tiercache import Cache, DatabaseTier, MemoryTier, RedisTier

        database = [DatabaseTier(pool, timeout=5)] if in_database else []
        self._cache = Cache(
            MemoryTier(max_entries=50_000),
            RedisTier(redis, timeout=2),
            *database,
            name="app",
            outbox=pool,
        )

    def cached(self, kind: str, load: Read) -> Read:
        async def read(number: int) -> dict[str, Any] | None:
            return await load(number)

        return self._cache.cached(ttl=TTL, key=kind + ":{number}")(read)

    async def changed(self, keys: list[str]) -> None:
        await self._cache.invalidate(*keys)

    async def aclose(self) -> None:
        await self._cache.aclose()


class Cashews(Uncached):
    """cashews on Redis with its client-side cache: memory, and Redis tells what has changed."""

    def __init__(self, redis: str) -> None:
        from cashews import Cache

        self._cache = Cache()
        self._cache.setup(redis, client_side=True)

    def cached(self, kind: str, load: Read) -> Read:
        @self._cache(ttl=TTL, key=kind + ":{number}")
        async def read(number: int) -> Row | None:
            return await load(number)

        return read

    async def committed(self, keys: list[str]) -> None:
        for key in keys:
            await self._cache.delete(key)

    async def aclose(self) -> None:
        await self._cache.close()


class Aiocache(Uncached):
    """aiocache on Redis; a memory cache of its own would not hear of other processes."""

    def __init__(self, redis: str) -> None:
        from aiocache import RedisCache
        from aiocache.serializers import PickleSerializer

        address, _, database = redis.removeprefix("redis://").partition("/")
        host, _, port = address.partition(":")
        self._cache = RedisCache(
            endpoint=host,
            port=int(port),
            db=int(database),
            serializer=PickleSerializer(),
            timeout=5,
        )

    def cached(self, kind: str, load: Read) -> Read:
        cache = self._cache

        async def read(number: int) -> Row | None:
            key = f"{kind}:{number}"
            found = await cache.get(key)
            if found is None:
                found = await load(number)
                await cache.set(key, found, ttl=TTL)
            return found

        return read

    async def committed(self, keys: list[str]) -> None:
        for key in keys:
            await self._cache.delete(key)

    async def aclose(self) -> None:
        await self._cache.close()


class Service:
    """What the routes do."""

    def __init__(self, pool: Pool, cache: Caching) -> None:
        self._pool = pool
        self._cache = cache
        self.queries = self.reads = self.loads = 0
        self._readers = {
            kind: cache.cached(kind, self._loader(statement)) for kind, statement in READS.items()
        }

    def _loader(self, statement: str) -> Read:
        async def load(number: int) -> Row | None:
            self.loads += 1
            self.queries += 1
            row = await self._pool.fetchrow(statement, number)
            return None if row is None else dict(row)

        return load

    async def read(self, kind: str, number: int) -> Row:
        """Return one record; 404 where there is none."""
        self.reads += 1
        row = await self._readers[kind](number)
        if row is None:
            raise HTTPException(404, f"no {kind} {number}")
        return row

    async def write(self, keys: list[str], *statements: tuple[Any, ...]) -> Any:
        """Run statements in a transaction that changes these keys; return the last one's value."""
        result = None
        async with self._pool.transaction() as tx:
            for statement in statements:
                result = await self._run(tx, statement)
            await self._cache.changed(keys)
        await self._cache.committed(keys)
        return result

    async def _run(self, tx: Transaction, statement: tuple[Any, ...]) -> Any:
        self.queries += 1
        return await tx.fetchval(*statement)

    async def warm(self, first: int, last: int) -> None:
        """Read sessions, a few at a time, as a service has that has been running for a while."""
        for number in range(first, last + 1, CONNECTIONS):
            numbers = range(number, min(number + CONNECTIONS, last + 1))
            sessions = await asyncio.gather(*(self.read("session", at) for at in numbers))
            customers = {session["customer_id"] for session in sessions}
            await asyncio.gather(*(self.read("customer", at) for at in customers))

    async def create(self, customer_id: int) -> int:
        """Open a session."""
        customer = await self.read("customer", customer_id)
        tenant = await self.read("tenant", customer["tenant_id"])
        number: int = await self._pool.fetchval("SELECT nextval('sessions_id_seq')")
        self.queries += 1
        await self.write(
            [f"session:{number}", f"context:{number}"],
            (
                "INSERT INTO sessions (id, tenant_id, customer_id, status) "
                "VALUES ($1, $2, $3, 'open')",
                number,
                tenant["id"],
                customer_id,
            ),
            ("INSERT INTO contexts VALUES ($1, 1, '')", number),
        )
        return number

    async def update(self, number: int, body: str) -> int:
        """Replace a session's context; return its new version."""
        session = await self.read("session", number)
        await self.read("customer", session["customer_id"])
        tenant = await self.read("tenant", session["tenant_id"])
        if len(body) > tenant["longest_context"]:
            raise HTTPException(413, "too long")
        version: int = await self.write(
            [f"context:{number}"],
            (
                "UPDATE contexts SET body = $2, version = version + 1 WHERE session_id = $1 "
                "RETURNING version",
                number,
                body,
            ),
        )
        return version

    async def hand_off(self, number: int, agent_id: int) -> None:
        """Give a session to another agent, with its context."""
        session = await self.read("session", number)
        await self.read("tenant", session["tenant_id"])
        await self.read("context", number)
        await self.read("agent", agent_id)
        await self.write(
            [f"session:{number}"],
            (
                "UPDATE sessions SET agent_id = $2, status = 'handed off' WHERE id = $1",
                number,
                agent_id,
            ),
            ("INSERT INTO handoffs (session_id, agent_id) VALUES ($1, $2)", number, agent_id),
        )


def caching(name: str, pool: Pool, redis: str) -> Caching:
    """Return the cache of that name."""
    match name:
        case "tiercache":
            return Tiercache(pool, redis, in_database=True)
        case "tiercache, L1 + L2":
            return Tiercache(pool, redis, in_database=False)
        case "cashews":
            return Cashews(redis)
        case "aiocache":
            return Aiocache(redis)
    return Uncached()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the pool and the cache."""
    async with Pool(os.environ["DATABASE_URL"], max_size=CONNECTIONS) as pool:
        cache = caching(os.environ["CACHE"], pool, os.environ["REDIS_URL"])
        app.state.service = Service(pool, cache)
        yield
        await cache.aclose()


app = FastAPI(lifespan=lifespan)


@app.post("/sessions", status_code=201)
async def create(request: Request) -> Row:
    """Open a session."""
    given = json.loads(await request.body())
    return {"id": await app.state.service.create(given["customer_id"])}


@app.put("/sessions/{number}/context")
async def update(number: int, request: Request) -> Row:
    """Replace its context."""
    given = json.loads(await request.body())
    return {"version": await app.state.service.update(number, given["body"])}


@app.post("/sessions/{number}/handoff")
async def hand_off(number: int, request: Request) -> Row:
    """Give it to another agent."""
    given = json.loads(await request.body())
    await app.state.service.hand_off(number, given["agent_id"])
    return {"session": number}


@app.get("/sessions/{number}")
async def show(number: int) -> Row:
    """Show it as the cache has it."""
    service = app.state.service
    return {**await service.read("session", number), **await service.read("context", number)}


@app.post("/warm/{first}/{last}")
async def warm(first: int, last: int) -> Row:
    """Read these sessions, and who they are of."""
    await app.state.service.warm(first, last)
    return {}


@app.get("/figures")
async def figures() -> Row:
    """Return what has been counted."""
    service = app.state.service
    return {"queries": service.queries, "reads": service.reads, "loads": service.loads}
