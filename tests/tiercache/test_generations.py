"""`Generations`: the marks of tags."""

import gc

from tiercache.generations import Generations


def test_void_ends_what_was_and_nothing_else() -> None:
    """Voiding a tag voids the marks that were handed out, not those handed out later."""
    generations = Generations()
    old, other = generations.marks(["a", "b"])
    generations.void(["a"])
    assert old.void
    assert not other.void
    [new] = generations.marks(["a"])
    assert new is not old
    assert not new.void


def test_one_mark_per_generation() -> None:
    """All who refer to a tag between two invalidations share one mark."""
    generations = Generations()
    [one] = generations.marks(["a"])
    assert generations.marks(["a", "a"]) == (one, one)


def test_unknown_tags_cost_nothing() -> None:
    """Voiding a tag that nobody refers to keeps nothing."""
    generations = Generations()
    generations.void(str(each) for each in range(1000))
    assert len(generations) == 0


def test_forgotten_with_its_last_reference() -> None:
    """A mark lives as long as an entry or a load refers to it."""
    generations = Generations()
    marks = generations.marks(["a", "b"])
    assert len(generations) == 2
    del marks
    gc.collect()
    assert len(generations) == 0
