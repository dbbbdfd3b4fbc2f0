"""The comparison of reads with what was committed: it must be able to find something."""

from tiercache.cli.demo.service import Order, User
from tiercache.cli.demo.truth import DECLINED, Tally, Truth


def test_the_truth_never_goes_back() -> None:
    """Writers that return in another order than they committed in leave the latest version."""
    truth = Truth()
    truth.renamed(1, 3)
    truth.renamed(1, 2)
    truth.ordered(1, 30)
    truth.ordered(1, 20)
    assert truth.versions == {1: 3}
    assert truth.orders == {1: 30}


def test_an_old_user_is_stale() -> None:
    """A version below the one that was committed before the read is counted."""
    tally = Tally()
    tally.user(User(1, "Ada", 2), 2)
    tally.user(User(1, "Ada", 3), 2)
    assert tally == Tally(reads=2)
    tally.user(User(1, "Ada", 1), 2)
    assert tally == Tally(reads=3, stale=1)


def test_missing_orders_are_stale() -> None:
    """Orders without the newest that was committed are counted, also when there are none."""
    tally = Tally()
    tally.orders([Order(9, "lamp", 1), Order(8, "lamp", 1)], 9)
    assert tally == Tally(reads=1)
    tally.orders([Order(8, "lamp", 1)], 9)
    tally.orders([], 9)
    assert tally == Tally(reads=3, stale=2)


def test_what_was_rolled_back_is_uncommitted() -> None:
    """A name or a product that only rolled back transactions wrote is counted."""
    tally = Tally()
    tally.user(User(1, DECLINED, 5), 2)
    tally.orders([Order(9, "lamp", 1), Order(8, DECLINED, 1)], 9)
    assert tally == Tally(reads=2, uncommitted=2)


def test_tallies_add_up() -> None:
    """The sum has everything of both."""
    tally = Tally(1, 2, 3)
    tally.add(Tally(10, 20, 30))
    assert tally == Tally(11, 22, 33)
