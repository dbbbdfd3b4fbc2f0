"""`Recovery`: what could not be invalidated yet."""

from tiercache import _recovery
from tiercache._recovery import Recovery


def test_covers_keys_and_tags() -> None:
    """What is pending is covered by key and by tag; with unknown tags any tag may be meant."""
    recovery = Recovery()
    assert not recovery
    assert not recovery.covers("k", None)
    recovery.add(["k"], ["t"])
    assert recovery
    assert recovery.covers("k", ())
    assert recovery.covers("other", ("u", "t"))
    assert recovery.covers("other", None)
    assert not recovery.covers("other", ("u",))


def test_keys_alone_leave_unknown_tags_alone() -> None:
    """While no tag is pending, an entry of unknown tags is judged by its key."""
    recovery = Recovery()
    recovery.add(["k"], [])
    assert not recovery.covers("other", None)


def test_everything() -> None:
    """A pending clear covers every key."""
    recovery = Recovery()
    recovery.add([], [], everything=True)
    assert recovery.covers("any", ())
    assert recovery.pending()[3] is True


def test_done_forgets_what_was_pending_then() -> None:
    """What came in, or came again, after `pending` was asked stays."""
    recovery = Recovery()
    recovery.add(["a", "b"], ["t"])
    number, keys, tags, everything = recovery.pending()
    assert (keys, tags, everything) == (("a", "b"), ("t",), False)
    recovery.add(["b", "c"], [])
    recovery.done(number)
    assert recovery.pending()[1:] == (("b", "c"), (), False)
    recovery.done(recovery.pending()[0])
    assert not recovery


def test_a_clear_that_comes_while_one_is_replayed_stays() -> None:
    """The same for clearing everything."""
    recovery = Recovery()
    recovery.add([], [], everything=True)
    number = recovery.pending()[0]
    recovery.add([], [], everything=True)
    recovery.done(number)
    assert recovery.covers("any", ())


def test_settle_forgets_what_somebody_finished() -> None:
    """A complete invalidation of another process settles its keys and tags here."""
    recovery = Recovery()
    recovery.settle(["a"], ["t"])
    recovery.add(["a", "b"], ["t"])
    recovery.settle(["a"], ["t"])
    assert recovery.pending()[1:] == (("b",), (), False)
    recovery.add([], [], everything=True)
    recovery.settle(["b"], [])
    assert recovery.covers("any", ())
    recovery.settle([], [], everything=True)
    assert not recovery


def test_bounded() -> None:
    """Past the limit everything counts as pending, and nothing more is kept."""
    recovery = Recovery()
    recovery.add(map(str, range(_recovery._LIMIT)), [])
    assert not recovery.covers("other", ())
    recovery.add(["one more"], [])
    assert recovery.covers("other", ())
    assert recovery.pending()[1:] == ((), (), True)
