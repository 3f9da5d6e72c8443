"""Turns of clients, beside a list that is searched."""

from hypothesis import given
from hypothesis import strategies as st

from headway.core.nbd.fair import FairQueue


def test_clients_take_turns():
    queue = FairQueue(most=10)
    for number in range(3):
        queue.put("hog", f"hog {number}")
    assert queue.take() == "hog 0"
    queue.put("other", "other 0")
    assert [queue.take() for _ in range(4)] == ["hog 1", "other 0", "hog 2", None]


def test_nobody_has_every_worker():
    queue = FairQueue(most=2)
    assert [queue.put("a", n) for n in range(4)] == [True] * 4
    assert [queue.take(), queue.take(), queue.take()] == [0, 1, None]
    assert not queue.put("a", 4)
    assert queue.put("b", "b") and queue.take() == "b"
    assert not queue.done("b")
    assert queue.done("a") and queue.take() == 2 and queue.take() is None


@given(st.lists(st.tuples(st.sampled_from(["put", "take", "done"]), st.integers(0, 3))))
def test_nothing_is_lost_or_overtakes_its_own(steps):
    queue, lines, running = (
        FairQueue(most=2),
        {key: [] for key in range(4)},
        dict.fromkeys(range(4), 0),
    )
    for number, (what, key) in enumerate(steps):
        if what == "put":
            queue.put(key, (key, number))
            lines[key].append((key, number))
        elif what == "done" and running[key]:
            queue.done(key)
            running[key] -= 1
        elif what == "take":
            may = [key for key, line in lines.items() if line and running[key] < 2]
            item = queue.take()
            assert (item is not None) == bool(may)
            if item is not None:
                assert item[0] in may and lines[item[0]].pop(0) == item
                running[item[0]] += 1
        queue.check_invariants()
