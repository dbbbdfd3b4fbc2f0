"""What every remote tier promises, as a suite that runs over any of them.

Subclass `TierContract` in a test module and give it a ``storage`` fixture.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

import pytest
import pytest_asyncio

from tiercache.tiers.base import Ask, Basis, Fill, Filled, Leased, Operations, RemoteTier, Stored

LEASE = 30.0
TTL = 60.0


class Storage(Protocol):
    """One server or database, empty when the test begins."""

    def tier(self) -> RemoteTier:
        """Make a tier upon it, not bound yet; several of them are several processes."""
        ...

    async def forget(self) -> None:
        """Lose everything that is stored: a restart without persistence, FLUSHALL, DELETE."""
        ...


async def load(
    tier: Operations,
    key: str,
    payload: bytes,
    tags: tuple[str, ...] = (),
    ttl: float | None = TTL,
) -> bool:
    """Take a lease and fill it at once, as a load that meets nobody does."""
    [basis] = await tier.lease([Ask(key, tags)], LEASE)
    [filled] = await tier.fill([Fill(basis, payload, ttl)])
    return filled


async def payload_of(tier: RemoteTier, key: str, tags: tuple[str, ...] | None = ()) -> bytes | None:
    """Return the payload that is readable under the key."""
    [stored] = await tier.read([Ask(key, tags)])
    return stored.payload if stored is not None else None


async def read_one(tier: RemoteTier, key: str, tags: tuple[str, ...] | None = ()) -> Stored:
    """Return the value under the key, which must be readable."""
    [stored] = await tier.read([Ask(key, tags)])
    assert stored is not None
    return stored


class TierContract:
    """Reads, leases, fills and invalidations of a `RemoteTier`."""

    @pytest.fixture
    def storage(self) -> Storage:
        """Return the storage; every subclass overrides this."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def tier(self, storage: Storage) -> AsyncIterator[RemoteTier]:
        """The tier of this process, bound to the cache ``app``."""
        tier = storage.tier()
        tier.bind("app")
        await tier.open()
        yield tier
        await tier.aclose()

    @pytest_asyncio.fixture
    async def peer(self, storage: Storage, tier: RemoteTier) -> AsyncIterator[RemoteTier]:
        """The tier of another process, bound to the same cache."""
        peer = storage.tier()
        peer.bind("app")
        await peer.open()
        yield peer
        await peer.aclose()

    @pytest_asyncio.fixture
    async def stranger(self, storage: Storage, tier: RemoteTier) -> AsyncIterator[RemoteTier]:
        """The tier of a cache of another name on the same storage."""
        stranger = storage.tier()
        stranger.bind("app:k")
        await stranger.open()
        yield stranger
        await stranger.aclose()

    # Reading and filling

    async def test_an_empty_slot_reads_as_nothing(self, tier: RemoteTier) -> None:
        """A key nobody wrote is None, with tags, without and with tags unknown."""
        asks = [Ask("a", ()), Ask("b", ("t",)), Ask("c", None)]
        assert await tier.read(asks) == [None, None, None]

    async def test_a_lease_reads_as_nothing(self, tier: RemoteTier) -> None:
        """A lease holds the place of a value and is none."""
        await tier.lease([Ask("a", ("t",))], LEASE)
        assert await payload_of(tier, "a", ("t",)) is None
        assert await payload_of(tier, "a", None) is None

    async def test_a_fill_of_a_lease_is_readable_by_everybody(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """What one process fills, both read, byte for byte."""
        payload = bytes(range(256)) * 3
        assert await load(tier, "a", payload)
        assert await payload_of(tier, "a") == payload
        assert await payload_of(peer, "a") == payload

    async def test_an_empty_payload_is_a_value(self, tier: RemoteTier) -> None:
        """No bytes at all are something else than no value."""
        assert await load(tier, "a", b"", ("t",))
        assert await payload_of(tier, "a", ("t",)) == b""

    async def test_a_basis_names_what_was_asked(self, tier: RemoteTier) -> None:
        """A lease answers in the order of the asks, its tags in the order of each ask."""
        bases = await tier.lease([Ask("a", ("t", "u")), Ask("b", ("u", "t")), Ask("c", ())], LEASE)
        assert [basis.key for basis in bases] == ["a", "b", "c"]
        assert [[tag for tag, _ in basis.tags] for basis in bases] == [["t", "u"], ["u", "t"], []]
        assert dict(bases[0].tags) == dict(bases[1].tags)
        assert len({basis.token for basis in bases}) == 3

    async def test_answers_come_in_the_order_of_the_asks(self, tier: RemoteTier) -> None:
        """A batch mixes hits, misses, tags and repeated keys and answers each in its place."""
        await load(tier, "a", b"A")
        await load(tier, "b", b"B", ("t",))
        asks = [Ask("b", None), Ask("x", ("t",)), Ask("a", ()), Ask("b", ("t",)), Ask("a", None)]
        found = await tier.read(asks)
        assert [stored and stored.payload for stored in found] == [b"B", None, b"A", b"B", b"A"]

    async def test_a_batch_of_one_thousand_comes_back_whole(self, tier: RemoteTier) -> None:
        """Leases, fills and reads of a thousand entries work in one call each."""
        asks = [Ask(f"k{n}", (f"t{n % 7}",)) for n in range(1000)]
        bases = await tier.lease(asks, LEASE)
        fills = [Fill(basis, str(n).encode(), TTL) for n, basis in enumerate(bases)]
        assert all(await tier.fill(fills))
        found = await tier.read(asks)
        assert [stored and stored.payload for stored in found] == [
            str(n).encode() for n in range(1000)
        ]

    async def test_an_empty_batch_is_answered(self, tier: RemoteTier) -> None:
        """Nothing asked is nothing answered, and no error."""
        assert await tier.read([]) == []
        assert await tier.lease([], LEASE) == []
        assert await tier.fill([]) == []
        await tier.release([])
        await tier.invalidate([], [])

    async def test_a_fill_without_ttl_is_kept(self, tier: RemoteTier) -> None:
        """A ttl of None means until it is invalidated or evicted, its tags included."""
        [basis] = await tier.lease([Ask("a", ("t",))], LEASE)
        assert await tier.fill([Fill(basis, b"v", None)]) == [True]
        assert await payload_of(tier, "a", ("t",)) == b"v"

    async def test_keys_and_tags_are_any_text(self, tier: RemoteTier) -> None:
        """Separators, braces, spaces, NUL and characters past ASCII keep apart what is apart."""
        names = [
            "a:b",
            "a:b:",
            "{a}",
            "a}b{",
            "",
            " ",
            "\x00",
            "ключ",
            "🔑",
            "x" * 2000,
            "k:a",
            "a\nb",
        ]
        for name in names:
            assert await load(tier, name, name.encode(), (name, name + "'"))
        for name in names:
            assert await payload_of(tier, name, (name, name + "'")) == name.encode()
            assert await payload_of(tier, name, None) == name.encode()

    async def test_a_key_is_no_tag(self, tier: RemoteTier) -> None:
        """A key and a tag of one spelling have nothing to do with each other."""
        await load(tier, "x", b"key")
        await load(tier, "y", b"tagged", ("x",))
        await tier.invalidate(["x"], [])
        assert await payload_of(tier, "x") is None
        assert await payload_of(tier, "y", ("x",)) == b"tagged"

    # Tags

    async def test_tags_asked_must_be_the_tags_stored(self, tier: RemoteTier) -> None:
        """A reader that knows other tags than the writer did reads nothing."""
        await load(tier, "a", b"v", ("t", "u"))
        assert await payload_of(tier, "a", ("t", "u")) == b"v"
        assert await payload_of(tier, "a", ("u", "t")) == b"v"
        for other in [(), ("t",), ("t", "u", "v"), ("t", "v")]:
            assert await payload_of(tier, "a", other) is None

    async def test_a_reader_that_names_no_tags_takes_those_carried(self, tier: RemoteTier) -> None:
        """``tags=None`` reads an entry with its own tags, and finds them in the basis."""
        await load(tier, "a", b"v", ("t", "u"))
        stored = await read_one(tier, "a", None)
        assert stored.payload == b"v"
        assert {tag for tag, _ in stored.basis.tags} == {"t", "u"}
        await tier.invalidate([], ["u"])
        assert await payload_of(tier, "a", None) is None

    async def test_invalidating_a_tag_ends_all_its_entries(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """Entries of the tag are gone for every process; those of other tags stay."""
        await load(tier, "a", b"A", ("t",))
        await load(tier, "b", b"B", ("u", "t"))
        await load(tier, "c", b"C", ("u",))
        await tier.invalidate([], ["t"])
        for reader in (tier, peer):
            assert await payload_of(reader, "a", ("t",)) is None
            assert await payload_of(reader, "b", ("u", "t")) is None
            assert await payload_of(reader, "c", ("u",)) == b"C"

    async def test_a_tag_made_again_does_not_bring_entries_back(self, tier: RemoteTier) -> None:
        """A new token of an invalidated tag equals no token that was stored before."""
        await load(tier, "a", b"old", ("t",))
        await tier.invalidate([], ["t"])
        await load(tier, "b", b"new", ("t",))
        assert await payload_of(tier, "a", ("t",)) is None
        assert await payload_of(tier, "a", None) is None
        assert await payload_of(tier, "b", ("t",)) == b"new"

    async def test_leases_of_one_tag_share_its_token(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """Two processes that miss entries of one tag agree on its token."""
        [[mine], [yours]] = await asyncio.gather(
            tier.lease([Ask("a", ("t",))], LEASE), peer.lease([Ask("b", ("t",))], LEASE)
        )
        assert mine.tags == yours.tags
        assert await tier.fill([Fill(mine, b"A", TTL)]) == [True]
        assert await peer.fill([Fill(yours, b"B", TTL)]) == [True]
        assert await payload_of(tier, "b", ("t",)) == b"B"

    # No stale fill

    async def test_an_invalidated_key_refuses_the_fill(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """A load that began before an invalidation of its key fills nothing."""
        [basis] = await tier.lease([Ask("a", ())], LEASE)
        await peer.invalidate(["a"], [])
        assert await tier.fill([Fill(basis, b"stale", TTL)]) == [False]
        assert await payload_of(tier, "a") is None

    async def test_an_invalidated_tag_makes_the_fill_unreadable(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """A load that began before an invalidation of its tag is never readable again."""
        [basis] = await tier.lease([Ask("a", ("t",))], LEASE)
        await peer.invalidate([], ["t"])
        await tier.fill([Fill(basis, b"stale", TTL)])
        assert await payload_of(tier, "a", ("t",)) is None
        await peer.lease([Ask("b", ("t",))], LEASE)
        assert await payload_of(tier, "a", ("t",)) is None
        assert await payload_of(tier, "a", None) is None

    async def test_a_cleared_tier_shows_no_earlier_fill(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """A load that began before `clear` is never readable, nor is what was there."""
        await load(tier, "old", b"old", ("t",))
        [basis, plain] = await tier.lease([Ask("a", ("t",)), Ask("b", ())], LEASE)
        await peer.clear()
        await tier.fill([Fill(basis, b"stale", TTL), Fill(plain, b"stale", TTL)])
        for reader in (tier, peer):
            assert await reader.read([Ask("a", ("t",)), Ask("b", ()), Ask("b", None)]) == [None] * 3
            assert await payload_of(reader, "old", ("t",)) is None
        assert await load(tier, "a", b"new", ("t",))
        assert await payload_of(peer, "a", ("t",)) == b"new"
        assert await payload_of(peer, "b") is None

    async def test_a_forgotten_storage_refuses_the_fill(
        self, tier: RemoteTier, storage: Storage
    ) -> None:
        """Whatever a server forgets is invalidated by that, leases and tokens included."""
        await load(tier, "old", b"old", ("t",))
        [basis] = await tier.lease([Ask("a", ("t",))], LEASE)
        await storage.forget()
        assert await tier.fill([Fill(basis, b"stale", TTL)]) == [False]
        assert await tier.read([Ask("a", ("t",)), Ask("old", ("t",))]) == [None, None]
        assert await load(tier, "a", b"new", ("t",))
        assert await payload_of(tier, "a", ("t",)) == b"new"

    async def test_only_the_last_lease_may_be_filled(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """A lease that another one replaced is refused; the other one is not."""
        [first] = await tier.lease([Ask("a", ())], LEASE)
        [second] = await peer.lease([Ask("a", ())], LEASE)
        assert await tier.fill([Fill(first, b"first", TTL)]) == [False]
        assert await peer.fill([Fill(second, b"second", TTL)]) == [True]
        assert await payload_of(tier, "a") == b"second"

    async def test_a_fill_is_no_answer_to_an_invalidation_that_follows(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """Invalidate after fill, lease again: the old basis is refused, the new one accepted."""
        [old] = await tier.lease([Ask("a", ("t",))], LEASE)
        assert await tier.fill([Fill(old, b"1", TTL)]) == [True]
        await peer.invalidate(["a"], [])
        [new] = await peer.lease([Ask("a", ("t",))], LEASE)
        assert await tier.fill([Fill(old, b"stale", TTL)]) == [False]
        assert await peer.fill([Fill(new, b"2", TTL)]) == [True]
        assert await payload_of(tier, "a", ("t",)) == b"2"

    async def test_a_batch_fills_what_it_may(self, tier: RemoteTier, peer: RemoteTier) -> None:
        """One refused fill of a batch refuses that one alone."""
        bases = await tier.lease([Ask("a", ()), Ask("b", ()), Ask("c", ())], LEASE)
        await peer.invalidate(["b"], [])
        fills = [Fill(basis, basis.key.encode(), TTL) for basis in bases]
        assert await tier.fill(fills) == [True, False, True]

    # Refreshing

    async def test_a_value_is_a_basis_for_its_refresh(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """What was read can be replaced on the basis it came with."""
        await load(tier, "a", b"1", ("t",))
        stored = await read_one(peer, "a", ("t",))
        assert await peer.fill([Fill(stored.basis, b"2", TTL)]) == [True]
        assert await payload_of(tier, "a", ("t",)) == b"2"

    async def test_of_two_refreshes_the_first_stays(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """What replaced a value makes its basis void for everybody else."""
        await load(tier, "a", b"1")
        stored = await read_one(tier, "a")
        again = await read_one(peer, "a")
        assert await peer.fill([Fill(again.basis, b"2", TTL)]) == [True]
        assert await tier.fill([Fill(stored.basis, b"stale", TTL)]) == [False]
        assert await payload_of(tier, "a") == b"2"

    async def test_a_refresh_of_an_invalidated_value_is_refused(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """A refresh that began before an invalidation of key or tag is never readable."""
        await load(tier, "a", b"1", ("t",))
        await load(tier, "b", b"1", ("t",))
        first, second = await read_one(tier, "a", ("t",)), await read_one(tier, "b", ("t",))
        await peer.invalidate(["a"], [])
        await peer.invalidate([], ["t"])
        assert await tier.fill([Fill(first.basis, b"stale", TTL)]) == [False]
        await tier.fill([Fill(second.basis, b"stale", TTL)])
        assert await tier.read([Ask("a", ("t",)), Ask("b", ("t",)), Ask("b", None)]) == [None] * 3

    # Leases that are waited for

    async def test_a_patient_lease_leaves_anothers_alone(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """A live lease stays its holder's, which learns at its fill that somebody waits."""
        [mine] = await tier.lease([Ask("a", ("t",))], LEASE, True)
        assert isinstance(mine, Basis)
        [answer] = await peer.lease([Ask("a", ("t",))], LEASE, True)
        assert isinstance(answer, Leased)
        assert answer.token == mine.token
        assert 0 < answer.remaining <= LEASE
        assert await tier.fill([Fill(mine, b"v", TTL)]) == [Filled.AWAITED]
        assert await payload_of(peer, "a", ("t",)) == b"v"

    async def test_a_fill_that_nobody_waits_for_says_so(self, tier: RemoteTier) -> None:
        """Neither a patient lease nor the refresh after one that was waited for is awaited."""
        [mine] = await tier.lease([Ask("a", ())], LEASE, True)
        assert await tier.fill([Fill(mine, b"1", TTL)]) == [Filled.STORED]
        [mine] = await tier.lease([Ask("b", ())], LEASE)
        [answer] = await tier.lease([Ask("b", ())], LEASE, True)
        assert isinstance(answer, Leased)
        assert await tier.fill([Fill(mine, b"1", TTL)]) == [Filled.AWAITED]
        stored = await read_one(tier, "b")
        assert await tier.fill([Fill(stored.basis, b"2", TTL)]) == [Filled.STORED]

    async def test_a_release_says_whether_somebody_waited(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """A lease that is given back is free at once, and its holder learns who wants it."""
        mine = await tier.lease([Ask("a", ()), Ask("b", ())], LEASE, True)
        await peer.lease([Ask("b", ())], LEASE, True)
        assert await tier.release(mine) == [False, True]
        assert await tier.release(mine) == [False, False]
        for answer in await peer.lease([Ask("a", ()), Ask("b", ())], LEASE, True):
            assert isinstance(answer, Basis)

    async def test_a_patient_lease_of_a_batch(self, tier: RemoteTier, peer: RemoteTier) -> None:
        """Each slot of a batch is answered by itself: taken, leased elsewhere, filled meanwhile."""
        [theirs] = await peer.lease([Ask("b", ("t",))], LEASE)
        await load(peer, "c", b"C", ("t",))
        asks = [Ask("a", ("t",)), Ask("b", ("t",)), Ask("c", ("t",)), Ask("d", ())]
        a, b, c, d = await tier.lease(asks, LEASE, True)
        assert isinstance(a, Basis)
        assert isinstance(b, Leased)
        assert b.token == theirs.token
        assert c == Leased(b"", 0.0)
        assert isinstance(d, Basis)
        assert await payload_of(tier, "c", ("t",)) == b"C"
        fills = [Fill(a, b"A", TTL), Fill(d, b"D", TTL)]
        assert await tier.fill(fills) == [Filled.STORED, Filled.STORED]
        assert await payload_of(peer, "a", ("t",)) == b"A"

    @pytest.mark.parametrize("way", ["tag", "clear"])
    async def test_a_patient_lease_replaces_what_nobody_can_read(
        self, tier: RemoteTier, peer: RemoteTier, way: str
    ) -> None:
        """A value that was invalidated is no obstacle, and takes no second question."""
        await load(tier, "a", b"old", ("t",))
        await (peer.invalidate([], ["t"]) if way == "tag" else peer.clear())
        assert await payload_of(tier, "a", ("t",)) is None
        [mine] = await tier.lease([Ask("a", ("t",))], LEASE, True)
        assert isinstance(mine, Basis)
        assert await tier.fill([Fill(mine, b"new", TTL)]) == [Filled.STORED]
        assert await payload_of(peer, "a", ("t",)) == b"new"

    async def test_a_patient_lease_replaces_the_value_that_is_named(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """A value that was read and is of no use may go; the one that came after it stays."""
        await load(tier, "a", b"old")
        stored = await read_one(tier, "a")
        ask = Ask("a", (), stored.basis.token)
        [mine] = await tier.lease([ask], LEASE, True)
        assert isinstance(mine, Basis)
        assert await tier.fill([Fill(mine, b"new", TTL)]) == [Filled.STORED]
        assert await peer.lease([ask], LEASE, True) == [Leased(b"", 0.0)]
        assert await payload_of(peer, "a") == b"new"

    async def test_an_invalidated_key_is_free_for_the_patient(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """After an invalidation nobody waits for the load that began before."""
        [old] = await tier.lease([Ask("a", ())], LEASE)
        await peer.invalidate(["a"], [])
        [new] = await peer.lease([Ask("a", ())], LEASE, True)
        assert isinstance(new, Basis)
        assert await tier.fill([Fill(old, b"stale", TTL)]) == [Filled.REFUSED]
        assert await peer.fill([Fill(new, b"v", TTL)]) == [Filled.STORED]

    async def test_those_who_wait_hear_of_a_fill_that_nobody_can_read(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """A tag that went meanwhile: by its fill or its release the holder learns who waits."""
        [mine] = await tier.lease([Ask("a", ("t",))], LEASE)
        await peer.invalidate([], ["t"])
        await peer.lease([Ask("a", ("t",))], LEASE, True)
        [filled] = await tier.fill([Fill(mine, b"stale", TTL)])
        assert not filled
        [released] = await tier.release([mine])
        assert filled == Filled.IN_VAIN or released
        assert await payload_of(peer, "a", ("t",)) is None

    async def test_a_lease_ends_unless_it_is_renewed(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """Past its time a lease is anybody's and its fill refused; a renewed one keeps its tags."""
        kept, lost = await tier.lease([Ask("kept", ("t",)), Ask("lost", ())], 0.5)
        assert await tier.renew([kept], LEASE) == [True]
        while isinstance((await peer.lease([Ask("lost", ())], LEASE, True))[0], Leased):
            await asyncio.sleep(0.01)
        [answer] = await peer.lease([Ask("kept", ("t",))], LEASE, True)
        assert isinstance(answer, Leased)
        assert answer.remaining > 1
        assert await tier.renew([kept, lost], LEASE) == [True, False]
        fills = [Fill(kept, b"v", TTL), Fill(lost, b"stale", TTL)]
        assert await tier.fill(fills) == [Filled.AWAITED, Filled.REFUSED]

    async def test_only_leases_are_renewed(self, tier: RemoteTier, peer: RemoteTier) -> None:
        """Neither a value, nor a lease that was released, replaced or invalidated."""
        assert await tier.renew([], LEASE) == []
        bases = await tier.lease([Ask(key, ()) for key in "abcd"], LEASE)
        await tier.fill([Fill(bases[0], b"v", TTL)])
        await tier.release([bases[1]])
        await peer.lease([Ask("c", ())], LEASE)
        await peer.invalidate(["d"], [])
        stored = await read_one(tier, "a")
        assert await tier.renew([*bases, stored.basis], LEASE) == [False] * 5
        assert await payload_of(tier, "a") == b"v"

    # Release

    async def test_release_empties_its_own_lease_alone(
        self, tier: RemoteTier, peer: RemoteTier
    ) -> None:
        """A released lease cannot be filled; somebody else's lease is left as it is."""
        [mine] = await tier.lease([Ask("a", ())], LEASE)
        await tier.release([mine])
        assert await tier.fill([Fill(mine, b"v", TTL)]) == [False]
        [stale] = await tier.lease([Ask("b", ())], LEASE)
        [yours] = await peer.lease([Ask("b", ())], LEASE)
        await tier.release([stale])
        assert await peer.fill([Fill(yours, b"v", TTL)]) == [True]

    async def test_release_leaves_values(self, tier: RemoteTier) -> None:
        """Releasing the basis of a value, or of a lease that was filled, takes no value away."""
        [basis] = await tier.lease([Ask("a", ("t",))], LEASE)
        assert await tier.fill([Fill(basis, b"v", TTL)]) == [True]
        stored = await read_one(tier, "a", ("t",))
        await tier.release([basis, stored.basis])
        assert await payload_of(tier, "a", ("t",)) == b"v"

    # Invalidating, clearing, namespaces

    async def test_invalidating_takes_keys_and_tags_at_once(self, tier: RemoteTier) -> None:
        """One call takes many keys and tags, known or not, and may be repeated."""
        await load(tier, "a", b"A")
        await load(tier, "b", b"B", ("t",))
        await load(tier, "c", b"C")
        for _ in range(2):
            await tier.invalidate(["a", "unknown"], ["t", "unknown"])
        assert await tier.read([Ask("a", ()), Ask("b", ("t",))]) == [None, None]
        assert await payload_of(tier, "c") == b"C"

    async def test_caches_of_other_names_are_apart(
        self, tier: RemoteTier, stranger: RemoteTier
    ) -> None:
        """Keys, tags, `invalidate` and `clear` stay within the namespace."""
        await load(tier, "a", b"mine", ("t",))
        assert await payload_of(stranger, "a", ("t",)) is None
        await load(stranger, "a", b"theirs", ("t",))
        await stranger.invalidate(["a"], ["t"])
        assert await payload_of(tier, "a", ("t",)) == b"mine"
        await stranger.clear()
        assert await payload_of(tier, "a", ("t",)) == b"mine"

    async def test_a_basis_of_another_life_of_the_storage_is_refused(
        self, tier: RemoteTier
    ) -> None:
        """A fill whose run is not the server's is refused (failover, a restored snapshot)."""
        [basis] = await tier.lease([Ask("a", ())], LEASE)
        foreign = Basis(basis.key, basis.token, basis.tags, b"x" * len(basis.run))
        assert await tier.fill([Fill(foreign, b"v", TTL)]) == [False]
        assert await payload_of(tier, "a") is None

    # Life

    async def test_open_and_close_may_be_repeated(self, storage: Storage) -> None:
        """Opening twice is opening once; closing twice is closing once."""
        tier = storage.tier()
        tier.bind("app")
        await tier.open()
        await tier.open()
        await tier.ping()
        assert await tier.prune(100) == 0
        await tier.aclose()
        await tier.aclose()

    async def test_concurrent_use_answers_everybody(self, tier: RemoteTier) -> None:
        """Hundreds of single reads and loads at once all succeed."""
        await asyncio.gather(*(load(tier, f"k{n}", b"%d" % n, ("t",)) for n in range(200)))
        found = await asyncio.gather(*(payload_of(tier, f"k{n}", ("t",)) for n in range(200)))
        assert found == [b"%d" % n for n in range(200)]

    def test_it_works_on_one_loop_after_another(self, storage: Storage) -> None:
        """A tier outlives the loops it is used on: `asyncio.run` twice."""
        tier = storage.tier()
        tier.bind("app")

        async def write() -> None:
            await tier.open()
            assert await load(tier, "a", b"v", ("t",))

        async def check() -> None:
            assert await payload_of(tier, "a", ("t",)) == b"v"
            await tier.aclose()

        asyncio.run(write())
        asyncio.run(check())
