"""The judge: which reads returned a version older than the invariants allow.

A key has versions that only grow; a writer's version is committed with its invalidation, and the
invalidation's key list names the version itself (`marker`), so that everybody who carries it out
or hears of it can say of which version. For a version ``v`` of a key let

- ``returned(v)`` be when the block of the transaction returned without an error, in process ``q``;
- ``heard(p, v)`` be when process ``p`` had handled an event that names ``v``;
- ``passed(v)`` be when the first pass that names ``v`` had reached every tier and the bus,
  whoever carried it out (the writer, a relay, a recovery).

A read that began at ``s`` in process ``p`` and returned ``w`` is *stale* if there is a committed
``v > w`` such that

1. ``v`` was written by ``p`` itself and ``returned(v) <= s`` (read your writes, invariant 2;
   whether or not every tier was reached, for then the process goes round it), or
2. ``heard(p, v) <= s`` (no stale fill, bounded staleness: invariants 1 and 5), or
3. ``passed(v) + bus_timeout <= s`` (invariant 5: also one that hears nothing), or
4. the read was of one shared tier alone, and ``passed(v) <= s`` (invariants 1 and 2), or
5. the key is strict, and ``returned(v) <= s``, whoever wrote it (invariant 6), or
6. everything had come to rest before, and ``v`` is the last version (invariant 4: nothing lost;
   here ``w > v`` is wrong as well).

It is *dirty* if ``w`` was never committed, or if it ended before the block that wrote ``w`` began
to end (invariants 3 and 7).

There is no allowance for slowness in any of these: each bound starts when something was already
true. What is not held against a read: versions whose commit had no known outcome (an event may
have come before the commit did; rule 6 covers them), and, under the key that a transaction `set`
without invalidating it, rules 2 to 4 for that version (its `set` is a pass of its own, which says
nothing of versions).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from tests.coherence.records import SETTLED, SINGLE, WHOLE, Kind, Record

_NEVER = 1 << 62


def marker(key: int, version: int) -> str:
    """Return the cache key that names a version in an invalidation."""
    return f"v:{key}:{version}"


def marked(names: Iterable[str]) -> list[tuple[int, int]]:
    """Return the keys and versions that an invalidation names."""
    found = []
    for name in names:
        if name.startswith("v:"):
            _, key, version = name.split(":")
            found.append((int(key), int(version)))
    return found


@dataclass
class Verdict:
    """What the judge found."""

    violations: list[str] = field(default_factory=list)
    judged: Counter[str] = field(default_factory=Counter)
    """Reads by kind."""
    invalidations: int = 0
    """Versions whose block has returned."""
    lags: list[float] = field(default_factory=list)
    """Seconds from the making of an event until another process had handled it."""

    def add(self, other: Verdict, origin: str) -> None:
        """Add the verdict on another trial."""
        self.violations += [f"{origin}: {text}" for text in other.violations]
        self.judged += other.judged
        self.invalidations += other.invalidations
        self.lags += other.lags


class Bounds:
    """For one reader: from when on which version is the oldest that it may get."""

    def __init__(self, binding: Iterable[tuple[int, int, str]]) -> None:
        self._times: list[int] = []
        self._versions: list[int] = []
        self._whys: list[str] = []
        oldest = -1
        for time, version, why in sorted(binding):
            if version > oldest:
                oldest = version
                self._times.append(time)
                self._versions.append(version)
                self._whys.append(why)

    def at(self, time: int) -> int:
        """Return the oldest version allowed to a read that began then."""
        place = bisect_right(self._times, time)
        return self._versions[place - 1] if place else -1

    def why(self, time: int) -> str:
        """Say since when, and by what, that version is the oldest."""
        place = bisect_right(self._times, time) - 1
        return f"{self._whys[place]} at {self._times[place] / 1e9:.6f}"


class Judge:
    """Judges one trial."""

    def __init__(
        self,
        committed: Mapping[int, set[int]],
        records: Mapping[int, Iterable[Record]],
        *,
        bus_timeout: float,
    ) -> None:
        """Take the versions of each key as the database knows them, and each process' records."""
        self._committed = committed
        self._timeout = round(bus_timeout * 1e9)
        self._reads: list[tuple[int, Record]] = []
        self._sent: dict[tuple[int, int], int] = {}
        self._returned: dict[tuple[int, int], tuple[int, int]] = {}
        self._doubtful: set[tuple[int, int]] = set()
        self._set: set[tuple[int, int]] = set()
        self._heard: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        self._passed: dict[tuple[int, int], int] = {}
        self.verdict = Verdict()
        for process, found in records.items():
            for record in found:
                self._take(process, record)

    def _take(self, process: int, record: Record) -> None:
        kind, key, start, end, version = record
        named = (key, version)
        if kind & ~SETTLED in WHOLE or kind & ~SETTLED in SINGLE:
            self._reads.append((process, record))
        elif kind == Kind.SENT:
            self._sent[named] = start
        elif kind == Kind.RETURNED:
            self._returned[named] = (start, process)
        elif kind == Kind.UNKNOWN:
            self._doubtful.add(named)
        elif kind == Kind.WAS_SET:
            self._set.add(named)
        elif kind == Kind.HEARD:
            self._heard[process, key].append((end, version))
            self.verdict.lags.append(start / 1e9)
        elif kind == Kind.PASSED:
            self._passed[named] = min(self._passed.get(named, _NEVER), end)

    def judge(self) -> Verdict:
        """Hold every read against what was known when it began."""
        self.verdict.invalidations = len(self._returned)

        def reader(item: tuple[int, Record]) -> tuple[int, int, int]:
            process, record = item
            return process, record.kind, record.key

        self._reads.sort(key=reader)
        for (process, kind, key), reads in groupby(self._reads, key=reader):
            bounds = self._bounds(process, kind & ~SETTLED, key)
            for _, record in reads:
                self._check(process, record, bounds)
        return self.verdict

    def _bounds(self, process: int, kind: int, key: int) -> Bounds:
        return Bounds(
            (time, version, why)
            for time, version, why in self._binding(process, kind, key)
            if version in self._committed[key] and (key, version) not in self._doubtful
        )

    def _binding(self, process: int, kind: int, key: int) -> Iterable[tuple[int, int, str]]:
        whole = kind in WHOLE
        for version in self._committed[key]:
            named = (key, version)
            if whole and named in self._returned:
                time, writer = self._returned[named]
                if writer == process or kind == Kind.STRICT:
                    yield time, version, f"its block returned in process {writer}"
            if kind == Kind.SET and named in self._set:
                continue
            if named in self._passed:
                late = self._timeout if whole else 0
                yield self._passed[named] + late, version, "a pass reached everything, and time"
        if whole:
            for time, version in self._heard.get((process, key), ()):
                if kind != Kind.SET or (key, version) not in self._set:
                    yield time, version, "its event was heard"

    def _check(self, process: int, record: Record, bounds: Bounds) -> None:
        kind, key, start, end, version = record
        settled, kind = kind & SETTLED, kind & ~SETTLED
        self.verdict.judged[Kind(kind).name.lower()] += 1
        committed = self._committed[key]
        if version not in committed:
            self._violated("dirty", process, record, "it was never committed")
        elif end < self._sent.get((key, version), 0):
            self._violated("dirty", process, record, "it was not committed yet")
        elif settled and version != max(committed):
            self._violated("unsettled", process, record, f"the database has {max(committed)}")
        elif version < (oldest := bounds.at(start)):
            why = f"{bounds.why(start)}; it came at {end / 1e9:.6f}"
            self._violated("stale", process, record, f"not older than {oldest} was allowed ({why})")

    def _violated(self, what: str, process: int, record: Record, why: str) -> None:
        name = Kind(record.kind & ~SETTLED).name
        self.verdict.violations.append(
            f"{what}: process {process} read {record.version} of key {record.key} ({name}) "
            f"at {record.start / 1e9:.6f}: {why}"
        )
