"""The books of a pool: proven by walks that no test author would think of."""

from collections import deque
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from poolkit._ledger import Ledger, Work
from poolkit._session import Reason, Slot

Books = Ledger[int, int]


def _slot(books: Books, session: int) -> Slot[int]:
    return Slot(session, generation=books.generation, born=0.0, expires=None)


class Walk(RuleBasedStateMachine):
    """A world of borrowers, connects and losses around the books, which does all their work."""

    def __init__(self) -> None:
        super().__init__()
        self.books: Books = Ledger(min_size=2, max_size=5)
        self.queue: deque[int] = deque()
        self.held: dict[int, Slot[int]] = {}
        self.aside: list[Slot[int]] = []
        self.opening = 0
        self.leaving = 0
        self.names = iter(range(10**9))
        self.shrunk_to = 5
        self.do(self.books.resize(2, 5))

    def do(self, work: Work[int, int] | None) -> None:
        """Do what the books ask for."""
        if work is None:
            return
        for waiter, slot in work.hand:
            assert waiter == self.queue.popleft(), "served out of order"
            assert not self.books.suspended
            self.held[waiter] = slot
        self.opening += work.open
        self.leaving += len(work.close)

    def pick(self, number: int) -> int:
        return sorted(self.held)[number % len(self.held)]

    @rule()
    def borrow(self) -> None:
        name = next(self.names)
        slot = self.books.take()
        if slot is not None:
            assert not self.queue, "a newcomer overtook"
            self.held[name] = slot
        else:
            self.queue.append(name)
            self.do(self.books.enqueue(name))

    @precondition(lambda self: self.held)
    @rule(number=st.integers(0, 9), how=st.sampled_from(["clean", "dirty", "lost"]))
    def give_back(self, number: int, how: str) -> None:
        slot = self.held.pop(self.pick(number))
        if how == "clean":
            self.do(self.books.give_back(slot))
        elif how == "dirty":
            self.books.lay_aside(slot)
            self.aside.append(slot)
        else:
            self.do(self.books.lost_used(slot, Reason.LOST))

    @precondition(lambda self: self.aside)
    @rule(good=st.booleans())
    def clean(self, good: bool) -> None:
        slot = self.aside.pop(0)
        self.do(self.books.restore(slot) if good else self.books.lost_aside(slot, Reason.BROKEN))

    @precondition(lambda self: self.opening)
    @rule(good=st.booleans())
    def connect(self, good: bool) -> None:
        self.opening -= 1
        if good:
            self.do(self.books.opened(_slot(self.books, next(self.names))))
        else:
            self.do(self.books.not_opened())

    @precondition(lambda self: self.queue)
    @rule(number=st.integers(0, 9))
    def give_up(self, number: int) -> None:
        waiter = self.queue[number % len(self.queue)]
        self.queue.remove(waiter)
        assert self.books.forget(waiter)
        assert not self.books.forget(waiter)

    @precondition(lambda self: self.leaving)
    @rule()
    def close_one(self) -> None:
        self.leaving -= 1
        self.do(self.books.left())

    @precondition(lambda self: self.books.idle)
    @rule()
    def look_after(self) -> None:
        slot = self.books.idle[0]
        self.books.inspect(slot)
        self.aside.append(slot)

    @precondition(lambda self: self.books.idle)
    @rule()
    def lose_idle(self) -> None:
        self.do(self.books.lost_idle([(self.books.idle[0], Reason.LOST)]))

    @rule()
    def recycle(self) -> None:
        self.do(self.books.recycle())

    @rule(size=st.integers(1, 8))
    def resize(self, size: int) -> None:
        self.do(self.books.resize(min(2, size), size))

    @rule()
    def suspend(self) -> None:
        self.books.suspend()

    @rule()
    def resume(self) -> None:
        self.do(self.books.resume())

    @invariant()
    def law(self) -> None:
        books = self.books
        assert len(books.idle) + len(books.used) + books.connecting == books.size
        assert books.size <= max(books.max_size, len(books.used) + books.connecting)
        assert books.acquired == books.released + len(books.used)

    @invariant()
    def the_books_are_true(self) -> None:
        books = self.books
        assert books.used == set(self.held.values())
        assert list(books.waiting) == list(self.queue)
        assert books.connecting == self.opening + len(self.aside)
        assert books.leaving == self.leaving

    @invariant()
    def nobody_waits_beside_an_idle_one(self) -> None:
        books = self.books
        assert not (books.idle and books.waiting) or books.suspended

    @invariant()
    def something_is_under_way_for_who_waits(self) -> None:
        books = self.books
        if books.waiting and not books.suspended:
            assert books.used or books.connecting or books.leaving

    @invariant()
    def the_floor_is_kept(self) -> None:
        books = self.books
        assert books.size >= min(books.min_size, books.max_size - books.leaving)

    def teardown(self) -> None:
        refused, work = self.books.close()
        assert refused == list(self.queue)
        self.queue.clear()
        self.do(work)
        steps: list[Callable[[], None]] = []
        while self.held or self.aside or self.opening or self.leaving:
            steps = [
                *([lambda: self.give_back(0, "clean")] if self.held else []),
                *([lambda: self.clean(True)] if self.aside else []),
                *([lambda: self.connect(True)] if self.opening else []),
                *([self.close_one] if self.leaving else []),
            ]
            steps[0]()
        assert self.books.size == 0
        assert self.books.acquired == self.books.released


Walk.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestWalk = Walk.TestCase


def test_most_recently_used_first() -> None:
    """The connection that came back last is lent first."""
    books: Books = Ledger(min_size=0, max_size=3)
    books.connecting = 3
    for session in (1, 2, 3):
        books.opened(_slot(books, session))
    first = books.take()
    second = books.take()
    assert first is not None
    assert second is not None
    books.give_back(first)
    books.give_back(second)
    assert books.take() is second


def test_growth_is_bounded_for_waiters_and_not_for_the_floor() -> None:
    """Waiters get two connects at once, the floor as many as it lacks."""
    books: Books = Ledger(min_size=0, max_size=10)
    assert [books.enqueue(number).open for number in range(5)] == [1, 1, 0, 0, 0]
    floor: Books = Ledger(min_size=4, max_size=10)
    assert floor.resize(4, 10).open == 4


def test_room_is_not_given_twice() -> None:
    """A connection that is being closed still takes room from a new one."""
    books: Books = Ledger(min_size=0, max_size=1)
    books.connecting = 1
    books.opened(_slot(books, 1))
    books.recycle()
    assert books.enqueue(1).open == 0
    assert books.left().open == 1
