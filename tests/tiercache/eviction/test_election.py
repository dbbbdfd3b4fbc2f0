"""Miniatures and the share they elect."""

from itertools import cycle, islice
from random import Random

from tiercache.eviction.election import FIRST, SHARES, Election


def hold(election: Election, keys: list[int], capacity: int = 40) -> int:
    """Ask for the keys; return how many terms have ended."""
    luck = Random(1)
    digests = {key: luck.getrandbits(64) for key in dict.fromkeys(keys)}
    return sum(election.request(digests[key], 1, 1, capacity) for key in keys)


def test_the_first_reigns_while_nothing_is_known() -> None:
    """Nobody is elected before there was a difference."""
    election = Election()
    assert election.share == SHARES[FIRST]
    hold(election, list(range(30)))
    assert election.share == SHARES[FIRST]


def test_a_loop_elects_the_smallest_window() -> None:
    """Round after round over more than the cache holds, what is in main is all that is hit."""
    election = Election()
    hold(election, [*islice(cycle(range(60)), 6_000)])
    assert election.share == min(SHARES)


def test_short_memory_elects_the_largest_window() -> None:
    """Keys asked for again a little later, then never more, need room for what is new."""
    election = Election()
    hold(election, [number + back for number in range(4_000) for back in (0, -15)])
    assert election.share == max(SHARES)


def test_the_elected_changes_with_the_times() -> None:
    """What was true for long is forgotten within some terms."""
    election = Election()
    hold(election, [number + back for number in range(4_000) for back in (0, -15)])
    hold(election, [*islice(cycle(range(100_000, 100_060)), 8_000)])
    assert election.share == min(SHARES)


def test_a_term_is_as_long_as_a_miniature_is_large() -> None:
    """So the choice is looked at once in the time in which everything held might change."""
    assert hold(Election(), [*islice(cycle(range(100)), 4_000)], capacity=40) >= 90


def test_miniatures_stay_within_their_capacity() -> None:
    """Also when it shrinks, and what alone is larger is not taken in."""
    election, luck = Election(), Random(1)
    for capacity in (100, 20, 3):
        for _ in range(300):
            election.request(luck.getrandbits(64), luck.choice([1, 2, 50]), 1, capacity)
        election.request(luck.getrandbits(64), 1, 1, capacity)
        assert all(miniature.cost <= capacity for miniature in election._miniatures)
