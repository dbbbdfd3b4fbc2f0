"""The circuit breaker: every call in every state, by a table."""

import threading

import pytest

from tiercache._breaker import FIRST_DELAY, LONGEST_DELAY, Breaker, State

CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN

NOW = 1000.0


def breaker_in(state: State) -> tuple[Breaker, int]:
    """Return a breaker in this state and the ticket of the period before it opened."""
    breaker = Breaker()
    ticket = breaker.admit()
    assert ticket is not None
    if state is not CLOSED:
        assert breaker.failed(ticket, NOW - FIRST_DELAY)
    if state is HALF_OPEN:
        assert breaker.probing(NOW)
    assert breaker.state is state
    return breaker, ticket


@pytest.mark.parametrize(
    ("state", "call", "answer", "after"),
    [
        (CLOSED, lambda b, t: b.admit() is not None, True, CLOSED),
        (CLOSED, lambda b, t: b.failed(t, NOW), True, OPEN),
        (CLOSED, lambda b, t: b.wait(NOW), None, CLOSED),
        (CLOSED, lambda b, t: b.probing(NOW), False, CLOSED),
        (CLOSED, lambda b, t: b.probe_failed(NOW), None, CLOSED),
        (CLOSED, lambda b, t: b.restored(), False, CLOSED),
        (OPEN, lambda b, t: b.admit(), None, OPEN),
        (OPEN, lambda b, t: b.failed(t, NOW), False, OPEN),
        (OPEN, lambda b, t: b.wait(NOW), 0.0, OPEN),
        (OPEN, lambda b, t: b.probing(NOW), True, HALF_OPEN),
        (OPEN, lambda b, t: b.probing(NOW - FIRST_DELAY), False, OPEN),
        (OPEN, lambda b, t: b.probe_failed(NOW), None, OPEN),
        (OPEN, lambda b, t: b.restored(), False, OPEN),
        (HALF_OPEN, lambda b, t: b.admit(), None, HALF_OPEN),
        (HALF_OPEN, lambda b, t: b.failed(t, NOW), False, HALF_OPEN),
        (HALF_OPEN, lambda b, t: b.wait(NOW), None, HALF_OPEN),
        (HALF_OPEN, lambda b, t: b.probing(NOW), False, HALF_OPEN),
        (HALF_OPEN, lambda b, t: b.probe_failed(NOW), None, OPEN),
        (HALF_OPEN, lambda b, t: b.restored(), True, CLOSED),
    ],
)
def test_every_call_in_every_state(state, call, answer, after) -> None:
    """Each call answers and moves as the table says."""
    breaker, ticket = breaker_in(state)
    assert call(breaker, ticket) == answer
    assert breaker.state is after


def test_the_delay_doubles_up_to_its_limit_and_begins_anew() -> None:
    """Probes that fail wait longer each time; a later outage starts with the first delay."""
    breaker = Breaker()
    for _ in range(2):
        ticket = breaker.admit()
        assert ticket is not None
        now = NOW
        breaker.failed(ticket, now)
        delays = []
        for _ in range(5):
            delay = breaker.wait(now)
            assert delay is not None
            delays.append(round(delay, 6))
            now += delay
            assert breaker.probing(now)
            breaker.probe_failed(now)
        assert delays == [FIRST_DELAY, 0.2, 0.4, LONGEST_DELAY, LONGEST_DELAY]
        now += LONGEST_DELAY
        assert breaker.probing(now)
        assert breaker.restored()


def test_a_late_failure_of_an_earlier_period_says_nothing() -> None:
    """A call admitted before the circuit opened cannot open it again after it closed."""
    breaker, ticket = breaker_in(HALF_OPEN)
    breaker.restored()
    assert not breaker.failed(ticket, NOW)
    assert breaker.state is CLOSED
    assert breaker.admit() != ticket


def test_of_many_threads_one_opens_it() -> None:
    """Of many failures at once exactly one is told that it opened the circuit."""
    breaker = Breaker()
    ticket = breaker.admit()
    assert ticket is not None
    barrier = threading.Barrier(8, timeout=10)
    opened = []

    def fail() -> None:
        barrier.wait()
        opened.append(breaker.failed(ticket, NOW))

    threads = [threading.Thread(target=fail) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(opened) == [False] * 7 + [True]
