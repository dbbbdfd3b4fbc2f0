"""`Recovery`: what could not be invalidated yet."""

from tiercache import _recovery
from tiercache._recovery import Recovery
from tiercache.invalidation import Change


def of(keys: str = "", tags: str = "") -> Change:
    """Return a change of these keys and tags, a letter each."""
    return Change(tuple(keys), tuple(tags))


EVERYTHING = Change(everything=True)


def test_covers_keys_and_tags() -> None:
    """What is pending is covered by key and by tag; with unknown tags any tag may be meant."""
    recovery = Recovery()
    assert not recovery
    assert not recovery.covers("k", None)
    recovery.add(of("k", "t"))
    assert recovery
    assert recovery.covers("k", ())
    assert recovery.covers("other", ("u", "t"))
    assert recovery.covers("other", None)
    assert not recovery.covers("other", ("u",))


def test_keys_alone_leave_unknown_tags_alone() -> None:
    """While no tag is pending, an entry of unknown tags is judged by its key."""
    recovery = Recovery()
    recovery.add(of("k"))
    assert not recovery.covers("other", None)


def test_everything() -> None:
    """A pending clear covers every key."""
    recovery = Recovery()
    recovery.add(EVERYTHING)
    assert recovery.covers("any", ())
    assert recovery.pending()[3] is True


def test_done_forgets_what_was_pending_then() -> None:
    """What came in, or came again, after `pending` was asked stays."""
    recovery = Recovery()
    recovery.add(of("ab", "t"))
    number, keys, tags, everything = recovery.pending()
    assert (keys, tags, everything) == (("a", "b"), ("t",), False)
    recovery.add(of("bc"))
    recovery.done(number)
    assert recovery.pending()[1:] == (("b", "c"), (), False)
    recovery.done(recovery.pending()[0])
    assert not recovery


def test_a_clear_that_comes_while_one_is_replayed_stays() -> None:
    """The same for clearing everything."""
    recovery = Recovery()
    recovery.add(EVERYTHING)
    number = recovery.pending()[0]
    recovery.add(EVERYTHING)
    recovery.done(number)
    assert recovery.covers("any", ())


def test_settle_forgets_what_a_later_invalidation_has_done() -> None:
    """One that began after it was remembered; an earlier one proves nothing."""
    recovery = Recovery()
    before = recovery.number
    recovery.settle(of("a", "t"), before)
    recovery.add(of("ab", "t"))
    recovery.settle(of("a", "t"), before)
    assert recovery.pending()[1:] == (("a", "b"), ("t",), False)
    recovery.settle(of("a", "t"), recovery.number)
    assert recovery.pending()[1:] == (("b",), (), False)
    recovery.add(EVERYTHING)
    recovery.settle(of("b"), recovery.number)
    assert recovery.covers("any", ())
    recovery.settle(EVERYTHING, recovery.number)
    assert not recovery


def test_a_hold_covers_until_it_is_let_go() -> None:
    """What may be invalidated yet is gone round, and there is nothing to repeat."""
    recovery, one, other = Recovery(), object(), object()
    recovery.hold(one, of("k", "t"))
    recovery.hold(other, of("k"))
    assert not recovery
    assert recovery.covers("k", ())
    assert recovery.covers("x", ("t",))
    assert recovery.covers("x", None)
    assert not recovery.covers("x", ("u",))
    recovery.let_go(one)
    assert not recovery.covers("x", ("t",))
    assert recovery.covers("k", ())
    recovery.let_go(other)
    assert not recovery.covers("k", ())
    recovery.hold(one, EVERYTHING)
    assert recovery.covers("any", ())


def test_has() -> None:
    """What is remembered already need not be written down again."""
    recovery = Recovery()
    assert not recovery.has(of("k"))
    recovery.add(of("k", "t"))
    assert recovery.has(of("k"))
    assert recovery.has(of("", "t"))
    assert not recovery.has(of("k", "u"))
    assert not recovery.has(EVERYTHING)
    recovery.add(EVERYTHING)
    assert recovery.has(of("x", "u"))


def test_bounded() -> None:
    """Past the limit everything counts as pending, and nothing more is kept."""
    recovery = Recovery()
    recovery.add(Change(tuple(map(str, range(_recovery._LIMIT)))))
    assert not recovery.covers("other", ())
    recovery.add(of("x"))
    assert recovery.covers("other", ())
    assert recovery.pending()[1:] == ((), (), True)
