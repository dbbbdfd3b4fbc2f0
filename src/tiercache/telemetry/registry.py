"""Every span, metric and attribute that this distribution emits, by name.

The instruments are created from these entries, golden tests hold what is emitted to them in both
directions, and the reference page is rendered from them (`tiercache.telemetry.reference`). The
entries of poolkit stand here for that page and those tests: poolkit imports nothing of tiercache.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
"""The version of the semantic conventions that the shared names are taken from."""


class Attribute(NamedTuple):
    """One attribute: what it says, its type, and its values where they are a fixed set."""

    name: str
    brief: str
    type: Literal["string", "int", "boolean"] = "string"
    values: tuple[str, ...] = ()


class Span(NamedTuple):
    """One kind of span. In its name, ``{attribute}`` stands for that attribute's value."""

    name: str
    brief: str
    attributes: tuple[str, ...]
    optional: tuple[str, ...] = ()
    root: bool = False


class Metric(NamedTuple):
    """One instrument. Attributes that not every measurement has are ``optional``."""

    name: str
    instrument: Literal["observable counter", "observable updowncounter", "histogram"]
    unit: str
    brief: str
    attributes: tuple[str, ...]
    optional: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_OPERATION_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5
)  # fmt: skip
_LOAD_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0
)  # fmt: skip

ATTRIBUTES: Final[tuple[Attribute, ...]] = (
    Attribute("tiercache.name", "The name of the cache."),
    Attribute("tiercache.operation.name", "What was asked of the cache, or of one of its tiers."),
    Attribute(
        "tiercache.result",
        "How a request ended: answered by a tier, answered with a value past its ttl, answered by "
        "the loader, or passed round the cache. Of a bulk operation, how its last key ended.",
        values=("hit", "stale", "miss", "bypass"),
    ),
    Attribute("tiercache.tier", "The level of a tier.", values=("l1", "l2", "l3")),
    Attribute("tiercache.hit", "Whether a tier answered, fresh or stale.", "boolean"),
    Attribute(
        "tiercache.coalesced",
        "Whether the request joined a load that was already under way.",
        "boolean",
    ),
    Attribute("tiercache.key.count", "How many keys the operation was about.", "int"),
    Attribute("tiercache.key", "The key. Only with `span_keys=True`, never on a metric."),
    Attribute(
        "tiercache.hits",
        "Running total of the requests under a span that L1 missed and that a tier still answered.",
        "int",
    ),
    Attribute(
        "tiercache.misses",
        "Running total of the requests under a span that no tier answered.",
        "int",
    ),
    Attribute(
        "tiercache.load.reason",
        "Why the function was called.",
        values=("miss", "expired", "refresh_ahead", "stale", "forced"),
    ),
    Attribute(
        "tiercache.invalidation.scope",
        "What was invalidated.",
        values=("key", "tag", "all"),
    ),
    Attribute(
        "tiercache.invalidation.source",
        "Where an invalidation came from: this cache, an event of another, a committed "
        "transaction, or a gap in the events.",
        values=("local", "bus", "outbox", "gap"),
    ),
    Attribute(
        "tiercache.tier.result",
        "How a lookup in one tier ended; `skipped` where its circuit was open.",
        values=("hit", "miss", "skipped", "error"),
    ),
    Attribute(
        "tiercache.lock.scope",
        "Whose load a request waited for: one of this process or one of another.",
        values=("process", "cluster"),
    ),
    Attribute(
        "tiercache.eviction.reason",
        "Why L1 dropped an entry, or did not take it.",
        values=("capacity", "expired", "rejected"),
    ),
    Attribute("tiercache.io.direction", "Seen from the process.", values=("read", "write")),
    Attribute(
        "tiercache.circuit_breaker.state",
        "A state of the circuit breaker: the value is 1 for the one it is in, 0 for the others.",
        values=("closed", "open", "half_open"),
    ),
    Attribute("code.function.name", "The qualified name of the decorated function."),
    Attribute("error.type", "The class of the error, or its SQLSTATE; absent without one."),
    Attribute(
        "db.client.connection.pool.name",
        "The name of the pool; of an unnamed one `server.address:server.port/db.namespace`.",
    ),
    Attribute("db.client.connection.state", "Held or not.", values=("idle", "used")),
    Attribute("db.system.name", "The database.", values=("postgresql", "sqlite")),
    Attribute(
        "poolkit.connection.close.reason",
        "Why a connection was closed.",
        values=(
            "lost",
            "max_lifetime",
            "idle_timeout",
            "evicted",
            "recycled",
            "resized",
            "broken",
            "hook_failed",
            "not_resettable",
            "pool_closed",
        ),
    ),
    Attribute(
        "poolkit.transaction.outcome",
        "How it ended; `unknown` where the answer to COMMIT was lost.",
        values=("commit", "rollback", "unknown"),
    ),
    Attribute("poolkit.transaction.isolation_level", "The isolation level that was asked for."),
    Attribute("poolkit.transaction.read_only", "Whether it was begun read-only.", "boolean"),
    Attribute("poolkit.transaction.attempt", "1, and more when `pool.run` tries again.", "int"),
)

SPANS: Final[tuple[Span, ...]] = (
    Span(
        "get_or_load {tiercache.name}",
        'A read that L1 could not answer (with `spans="all"`: every read).',
        ("tiercache.name", "tiercache.operation.name", "tiercache.coalesced"),
        (
            "tiercache.result",
            "tiercache.hit",
            "tiercache.tier",
            "code.function.name",
            "tiercache.key.count",
            "tiercache.key",
            "error.type",
        ),
    ),
    Span(
        "load {tiercache.name}",
        "A call of the user's function.",
        ("tiercache.load.reason",),
        ("error.type",),
    ),
    Span(
        "refresh {tiercache.name}",
        "A background refresh; linked to the span of the request that caused it.",
        ("tiercache.load.reason",),
        ("error.type",),
        root=True,
    ),
    Span(
        "invalidate {tiercache.name}",
        "An explicit invalidation.",
        ("tiercache.invalidation.scope", "tiercache.key.count"),
        ("error.type",),
    ),
)

CALLER_ATTRIBUTES: Final = ("tiercache.hits", "tiercache.misses")
"""What the caller's own recording span is given."""

METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "tiercache.requests",
        "observable counter",
        "{request}",
        "Requests by how they ended; hits by the tier that answered.",
        ("tiercache.name", "tiercache.result"),
        ("tiercache.tier",),
    ),
    Metric(
        "tiercache.tier.lookups",
        "observable counter",
        "{lookup}",
        "Lookups of each tier.",
        ("tiercache.name", "tiercache.tier", "tiercache.tier.result"),
    ),
    Metric(
        "tiercache.operation.duration",
        "histogram",
        "s",
        "Duration of the calls of a remote tier (l2, l3); L1 is never timed.",
        ("tiercache.name", "tiercache.tier", "tiercache.operation.name"),
        ("error.type",),
        _OPERATION_BUCKETS,
    ),
    Metric(
        "tiercache.load.duration",
        "histogram",
        "s",
        "Duration of the calls of the user's function; one that was cancelled has its error type.",
        ("tiercache.name", "tiercache.load.reason"),
        ("error.type",),
        _LOAD_BUCKETS,
    ),
    Metric(
        "tiercache.coalesced_requests",
        "observable counter",
        "{request}",
        "Requests that were answered by a load of somebody else.",
        ("tiercache.name", "tiercache.lock.scope"),
    ),
    Metric(
        "tiercache.evictions",
        "observable counter",
        "{eviction}",
        "Entries that L1 dropped or did not take.",
        ("tiercache.name", "tiercache.eviction.reason"),
    ),
    Metric(
        "tiercache.invalidations",
        "observable counter",
        "{invalidation}",
        "Invalidations applied to this process.",
        ("tiercache.name", "tiercache.invalidation.source"),
    ),
    Metric(
        "tiercache.entry.count",
        "observable updowncounter",
        "{entry}",
        "Entries held, where the tier knows it.",
        ("tiercache.name", "tiercache.tier"),
    ),
    Metric(
        "tiercache.entry.limit",
        "observable updowncounter",
        "{entry}",
        "Entries the tier may hold, where there is a limit.",
        ("tiercache.name", "tiercache.tier"),
    ),
    Metric(
        "tiercache.memory.usage",
        "observable updowncounter",
        "By",
        "Memory held, where the tier counts it.",
        ("tiercache.name", "tiercache.tier"),
    ),
    Metric(
        "tiercache.memory.limit",
        "observable updowncounter",
        "By",
        "Memory the tier may hold, where there is a limit.",
        ("tiercache.name", "tiercache.tier"),
    ),
    Metric(
        "tiercache.io",
        "observable counter",
        "By",
        "Payload that went to and came from a remote tier.",
        ("tiercache.name", "tiercache.tier", "tiercache.io.direction"),
    ),
    Metric(
        "tiercache.circuit_breaker.state",
        "observable updowncounter",
        "1",
        "The state of a remote tier's circuit breaker.",
        ("tiercache.name", "tiercache.tier", "tiercache.circuit_breaker.state"),
    ),
    Metric(
        "tiercache.bus.connected",
        "observable updowncounter",
        "{connection}",
        "1 while events of other processes arrive, 0 while they do not; absent without a bus.",
        ("tiercache.name",),
    ),
    Metric(
        "tiercache.bus.lag",
        "histogram",
        "s",
        "From the publication of an event to its application here.",
        ("tiercache.name",),
        buckets=_OPERATION_BUCKETS,
    ),
)

_POOL = ("db.client.connection.pool.name",)

POOLKIT_SPANS: Final[tuple[Span, ...]] = (
    Span(
        "acquire {db.client.connection.pool.name}",
        "A wait for a connection that took over 1 ms or failed; made when it is over.",
        (*_POOL, "db.system.name"),
        ("error.type",),
    ),
    Span(
        "transaction {db.client.connection.pool.name}",
        "A transaction, from BEGIN to its outcome.",
        (*_POOL, "db.system.name", "poolkit.transaction.outcome"),
        (
            "poolkit.transaction.isolation_level",
            "poolkit.transaction.read_only",
            "poolkit.transaction.attempt",
            "error.type",
        ),
    ),
)

POOLKIT_METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "db.client.connection.count",
        "observable updowncounter",
        "{connection}",
        "Connections in each state.",
        (*_POOL, "db.client.connection.state"),
    ),
    Metric(
        "db.client.connection.max",
        "observable updowncounter",
        "{connection}",
        "Connections the pool may open.",
        _POOL,
    ),
    Metric(
        "db.client.connection.idle.max",
        "observable updowncounter",
        "{connection}",
        "Idle connections the pool may keep.",
        _POOL,
    ),
    Metric(
        "db.client.connection.idle.min",
        "observable updowncounter",
        "{connection}",
        "Connections the pool keeps at all times.",
        _POOL,
    ),
    Metric(
        "db.client.connection.pending_requests",
        "observable updowncounter",
        "{request}",
        "Requests that wait for a connection.",
        _POOL,
    ),
    Metric(
        "db.client.connection.timeouts",
        "observable counter",
        "{timeout}",
        "Requests that gave up waiting.",
        _POOL,
    ),
    Metric(
        "db.client.connection.create_time",
        "histogram",
        "s",
        "Time to open a connection.",
        _POOL,
        ("error.type",),
    ),
    Metric(
        "db.client.connection.wait_time",
        "histogram",
        "s",
        "Time a request waited for a connection.",
        _POOL,
    ),
    Metric(
        "db.client.connection.use_time",
        "histogram",
        "s",
        "Time between borrowing a connection and giving it back.",
        _POOL,
    ),
    Metric(
        "poolkit.connection.closed",
        "observable counter",
        "{connection}",
        "Connections that were closed.",
        (*_POOL, "poolkit.connection.close.reason"),
    ),
    Metric(
        "poolkit.connection.leaks",
        "observable counter",
        "{connection}",
        "Connections that were out for longer than `leak_threshold`.",
        _POOL,
    ),
    Metric(
        "poolkit.transaction.duration",
        "histogram",
        "s",
        "Duration of transactions.",
        (*_POOL, "poolkit.transaction.outcome"),
        ("error.type",),
    ),
    Metric(
        "poolkit.transaction.retries",
        "observable counter",
        "{retry}",
        "Transactions that were run again, by SQLSTATE.",
        (*_POOL, "error.type"),
    ),
)
