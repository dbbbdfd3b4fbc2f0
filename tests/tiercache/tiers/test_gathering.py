"""`Gathering`: what goes together, in which order, and what each request hears of it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from tiercache.errors import TierError
from tiercache.tiers.gathering import DEPTH, LIMIT, Gathering


def failure(*, unavailable: bool = False) -> TierError:
    """Return what a tier raises."""
    return TierError("no", tier="redis", operation="read", unavailable=unavailable)


class Tape:
    """An operation that notes what it was asked, and can be held up and made to fail."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.fails: Callable[[Sequence[str]], TierError | None] = lambda items: None
        self.cancelled = 0

    async def act(self, items: Sequence[str]) -> list[str]:
        """Answer each item with itself in capitals."""
        self.asked.append(items)
        await asyncio.sleep(0)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        error = self.fails(items)
        if error is not None:
            raise error
        return [item.upper() for item in items]


async def turns(count: int) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def outcomes(*requests: Awaitable[list[str]]) -> Sequence[list[str] | BaseException]:
    """Return what became of requests that were made in one turn."""
    async with asyncio.timeout(10):
        return await asyncio.gather(*requests, return_exceptions=True)


async def test_one_turn_goes_together() -> None:
    """Behind the first, what is asked in one turn is one operation; each hears of his own."""
    tape = Tape()
    gathering = Gathering(tape.act)
    found = await outcomes(
        gathering.ask(["a", "b"]), gathering.ask(["c"]), gathering.ask(["a"]), gathering.ask([])
    )
    assert found == [["A", "B"], ["C"], ["A"], []]
    assert tape.asked == [["a", "b"], ["c", "a"]]


async def test_a_lone_request_is_not_held_up() -> None:
    """Nobody to wait for: it is sent in the very turn in which it is asked, time after time."""
    tape = Tape()
    gathering = Gathering(tape.act)
    for count in range(1, 4):
        request = asyncio.ensure_future(gathering.ask(["a"]))
        await turns(1)
        assert tape.asked == [["a"]] * count
        assert await request == ["A"]


async def test_a_batch_has_a_limit() -> None:
    """More than fit are divided; a request with too many items goes as a whole, and alone."""
    tape = Tape()
    gathering = Gathering(tape.act)
    await outcomes(*(gathering.ask(["x"]) for _ in range(1 + LIMIT + 10)))
    assert [len(items) for items in tape.asked] == [1, LIMIT, 10]
    large = ["y"] * (LIMIT + 1)
    found = await outcomes(gathering.ask(["x"]), gathering.ask(["x"]), gathering.ask(large))
    assert found[2] == ["Y"] * (LIMIT + 1)
    assert tape.asked[3:] == [["x"], ["x"], large]


async def test_a_size_that_is_not_the_number_of_items() -> None:
    """One item may count for many."""
    tape = Tape()
    gathering = Gathering(tape.act)
    await outcomes(*(gathering.ask([name], LIMIT // 2) for name in "abcd"))
    assert tape.asked == [["a"], ["b", "c"], ["d"]]


async def test_what_is_about_the_same_goes_apart() -> None:
    """Two requests about one thing are two operations."""
    tape = Tape()
    gathering = Gathering(tape.act, about=lambda item: item)
    found = await outcomes(*(gathering.ask([name]) for name in "abcb"))
    assert found == [["A"], ["B"], ["C"], ["B"]]
    assert tape.asked == [["a"], ["b", "c"], ["b"]]


async def test_who_comes_late_goes_together() -> None:
    """With enough operations under way, what is asked meanwhile is one when the first has ended."""
    tape = Tape()
    tape.open.clear()
    gathering = Gathering(tape.act)
    requests = []
    sent = 1 + DEPTH  # the first, and as many batches
    for number in range(sent + 5):
        requests.append(asyncio.ensure_future(gathering.ask([f"n{number}"])))
        await turns(3)
    assert tape.asked == [[f"n{number}"] for number in range(sent)]
    tape.open.set()
    assert await outcomes(*requests) == [[f"N{number}"] for number in range(sent + 5)]
    assert tape.asked[sent:] == [[f"n{number}" for number in range(sent, sent + 5)]]


async def test_who_leaves_leaves_the_others_alone() -> None:
    """Before it is sent he is not asked for; after it, the others hear their own answers."""
    tape = Tape()
    tape.open.clear()
    gathering = Gathering(tape.act)
    requests = [asyncio.ensure_future(gathering.ask([name])) for name in "abcd"]
    early = asyncio.ensure_future(gathering.ask(["e"]))
    await turns(1)
    early.cancel()
    await turns(2)
    requests[0].cancel()
    requests[2].cancel()
    await turns(2)
    tape.open.set()
    found = await outcomes(*requests)
    assert tape.asked == [["a"], ["b", "c", "d"]]
    assert [isinstance(each, asyncio.CancelledError) for each in found] == [True, False] * 2
    assert [found[1], found[3]] == [["B"], ["D"]]
    assert tape.cancelled == 1, "the first, which was alone"


async def test_when_all_have_left_it_ends() -> None:
    """An operation that nobody waits for is cancelled, and frees the way for the next."""
    tape = Tape()
    tape.open.clear()
    gathering = Gathering(tape.act)
    for _ in range(DEPTH + 1):
        requests = [asyncio.ensure_future(gathering.ask([name])) for name in "abc"]
        await turns(3)
        for request in requests:
            request.cancel()
        await outcomes(*requests)
        await turns(2)
    assert tape.cancelled == 2 * (DEPTH + 1)
    tape.open.set()
    assert await outcomes(gathering.ask(["c"])) == [["C"]]


async def test_a_tier_that_is_away_fails_all_at_once() -> None:
    """Each request has an error of its own, with the same cause, and nothing is asked again."""
    tape = Tape()
    cause = OSError("gone")

    def away(items: Sequence[str]) -> TierError:
        error = failure(unavailable=True)
        error.__cause__ = cause
        return error

    tape.fails = away
    gathering = Gathering(tape.act)
    found = await outcomes(*(gathering.ask([name]) for name in "abc"))
    assert tape.asked == [["a"], ["b", "c"]]
    assert len({id(error) for error in found}) == 3
    for error in found:
        assert isinstance(error, TierError)
        assert (str(error), error.tier, error.operation) == ("no", "redis", "read")
        assert (error.unavailable, error.skipped, error.__cause__) == (True, False, cause)


async def test_a_refusal_is_his_whose_it_is() -> None:
    """What was refused together is asked for one by one, so that only the guilty hear of it."""
    tape = Tape()
    tape.fails = lambda items: failure() if "b" in items else None
    gathering = Gathering(tape.act)
    found = await outcomes(*(gathering.ask([name]) for name in "abc"))
    assert tape.asked == [["a"], ["b", "c"], ["b"], ["c"]]
    assert found[0] == ["A"]
    assert isinstance(found[1], TierError)
    assert found[2] == ["C"]


async def test_what_nobody_expected_reaches_all_who_asked() -> None:
    """Any other error is everybody's; nobody is left waiting, or cancelled for it."""

    async def act(items: Sequence[str]) -> list[str]:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    gathering = Gathering(act)
    found = await outcomes(*(gathering.ask([name]) for name in "abc"))
    assert [type(error) for error in found] == [ZeroDivisionError] * 3


async def test_a_refusal_of_one_request_is_not_repeated() -> None:
    """Alone, it is refused once."""
    tape = Tape()
    tape.fails = lambda items: failure()
    with pytest.raises(TierError):
        await Gathering(tape.act).ask(["a", "b"])
    assert tape.asked == [["a", "b"]]


def test_every_loop_has_its_own() -> None:
    """Loops come and go; what one left behind is nothing to the next."""
    tape = Tape()
    gathering = Gathering(tape.act)
    for name in "abc":
        assert asyncio.run(gathering.ask([name])) == [name.upper()]
    assert len(gathering._places) == 1
