"""The sketch: what it remembers, what it forgets, and how large it is."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tiercache.eviction.sketch import CELLS, MOST, PERIOD, PIECE, Sketch

digests = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(digests, max_size=60))
def test_an_estimate_is_never_too_low(uses: list[int]) -> None:
    """Before anything is halved, each key has at least the uses it had, up to the limit."""
    sketch = Sketch(100)
    for digest in uses:
        assert sketch.add(digest) == sketch.estimate(digest)
    for digest in uses:
        assert sketch.estimate(digest) >= min(uses.count(digest), MOST)


def test_an_estimate_is_seldom_too_high() -> None:
    """As many different keys as a cache holds, four times over, leave others nearly untouched."""
    luck, sketch = Random(1), Sketch(1_000)
    for _ in range(4_000):
        sketch.add(luck.getrandbits(64))
    others = [sketch.estimate(luck.getrandbits(64)) for _ in range(1_000)]
    assert sum(others) < 220


def test_the_past_fades() -> None:
    """After a period without a use, half of the uses are left; after a few, nothing."""
    luck, sketch = Random(1), Sketch(10)
    for _ in range(8):
        sketch.add(7)
    seen = []
    for _ in range(5):
        for _ in range(PERIOD * 10):
            sketch.add(luck.choice([1, 2, 3, 4]) << 40)  # never the cells of 7
        seen.append(sketch.estimate(7))
    assert seen == [4, 2, 1, 0, 0]


def test_a_large_one_fades_piece_by_piece() -> None:
    """No single use halves more than a piece, and a period reaches every piece once."""
    entries = 3 * PIECE // CELLS
    sketch = Sketch(entries)
    sketch._cells[:] = bytes([8]) * len(sketch._cells)
    before = sum(sketch._cells)
    for step in range(PERIOD * entries):
        sketch.add(0)
        if step % 10_000 == 0:
            now = sum(sketch._cells)
            assert before - now <= 4 * PIECE
            before = now
    assert set(sketch._cells[2:]) == {4}


def test_growing_keeps_every_estimate() -> None:
    """The cells are doubled, and a key finds its count in the upper half as well."""
    luck = Random(1)
    keys = [luck.getrandbits(64) for _ in range(200)]
    sketch = Sketch(20)
    for _ in range(2):
        for key in keys[:50]:
            sketch.add(key)
    before = [sketch.estimate(key) for key in keys]
    sketch.grow(200)
    assert [sketch.estimate(key) for key in keys] == before
    assert len(sketch._cells) >= 200 * CELLS
