"""A bio completes once, when all its shares have come, in constant stack; hooks find what they knew."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.block.bio import READ, WRITE, Bio
from headway.errors import BlockError


class Shelf:
    """Where bios go home."""

    def __init__(self) -> None:
        self.home: list[Bio] = []

    def free(self, bio: Bio) -> None:
        bio.reset()
        self.home.append(bio)


def asked(length: int = 16) -> tuple[Bio, list[BaseException | None]]:
    """A bio, and its endings."""
    bio = Bio(WRITE, 100, memoryview(bytearray(range(length))))
    ends: list[BaseException | None] = []
    bio.push(lambda bio: ends.append(bio.error))
    return bio, ends


def test_t56_a_split_bio_completes_once_after_its_pieces_in_any_order() -> None:
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]):
        shelf = Shelf()
        bio, ends = asked()
        first = bio.split_to(Bio(home=shelf), 4)
        second = bio.split_to(Bio(home=shelf), 8)
        assert (first.offset, second.offset, bio.offset) == (100, 104, 112)
        assert [bytes(its.view or b"") for its in (first, second, bio)] == [
            bytes(range(4)), bytes(range(4, 12)), bytes(range(12, 16))
        ]  # fmt: skip
        parts = [first, second, bio]
        for number, index in enumerate(order):
            assert ends == []
            parts[index].complete()
            assert len(ends) == (number == 2)
        assert sorted(map(id, shelf.home)) == sorted(map(id, (first, second)))
        assert (bio.offset, bio.length) == (100, 16), "the hook's own range is back"


def test_t56_the_first_error_of_any_piece_is_the_error_of_the_whole() -> None:
    bio, ends = asked()
    first = bio.split_to(Bio(), 4)
    first.complete(error := BlockError(5, "the first"))
    bio.complete(BlockError(5, "the second"))
    assert ends == [error]


def test_a_hook_sees_only_the_errors_of_what_it_passed_on() -> None:
    """The rest of a split hears of its own end, not of the front's that was cut off above it."""
    bio, ends = asked()
    front = bio.split_to(Bio(), 4)
    heard: list[BaseException | None] = []
    bio.push(lambda bio: heard.append(bio.error))  # the layer below takes the rest
    front.complete(error := BlockError(5, "front"))
    bio.complete()
    assert heard == [None] and ends == [error]


def test_a_hook_that_takes_the_bio_back_lets_nobody_above_hear_until_it_completes_it_again() -> (
    None
):
    bio, ends = asked()
    tries: list[Bio] = []

    def again(bio: Bio) -> bool:
        if bio.error is None:
            return False
        bio.error = None
        bio.push(again)
        tries.append(bio)
        return True

    bio.push(again)
    bio.complete(BlockError(5, "once"))
    assert tries == [bio] and ends == []
    bio.complete()
    assert ends == [None]


def test_what_a_hook_raises_is_the_bios_error_and_whoever_is_above_hears() -> None:
    bio, ends = asked()
    bio.push(lambda bio: 1 / 0)
    bio.complete()
    assert isinstance(ends[0], ZeroDivisionError)


def test_depth_costs_no_stack() -> None:
    """T5.4: fifty thousand children of children, and as many hooks, complete in one loop."""
    bio, ends = asked()
    shelf, lowest = Shelf(), bio
    for _ in range(50_000):
        child = lowest.copy_to(Bio(home=shelf))
        lowest.chain(child)
        lowest.complete()
        child.push(lambda bio: None)
        lowest = child
    assert ends == []
    lowest.complete()
    assert ends == [None] and len(shelf.home) == 50_000


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("csp"), st.integers(0, 9)), max_size=12), st.randoms())
def test_t56_any_tree_of_splits_chains_and_hooks_completes_exactly_once(moves, chance) -> None:
    """Against the model: a bio is complete when itself and all below it are."""
    root, ends = asked(64)
    shelf, out, heard = Shelf(), [root], []
    for move, pick in moves:
        bio = out[pick % len(out)]
        if move == "c":
            child = bio.copy_to(Bio(home=shelf))
            bio.chain(child)
            out.append(child)
        elif move == "s" and bio.length > 1:
            out.append(bio.split_to(Bio(home=shelf), 1))
        elif move == "p":
            bio.push(lambda bio: heard.append(bio))
    hooks = sum(move == "p" for move, _ in moves)
    children = len(out) - 1
    chance.shuffle(out)
    while out:
        assert ends == []
        out.pop().complete()
    assert ends == [None] and len(heard) == hooks and len(shelf.home) == children


def test_completions_from_many_threads_end_it_once() -> None:
    for _ in range(20):
        bio, ends = asked()
        children = [Bio(READ) for _ in range(8)]
        for child in children:
            bio.chain(child)
        ready = threading.Barrier(9)

        def finish(child: Bio, ready: threading.Barrier = ready) -> None:
            ready.wait()
            child.complete()

        threads = [threading.Thread(target=finish, args=(child,)) for child in [*children, bio]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ends == [None]


def test_misuse_is_an_assertion() -> None:
    bio, _ = asked()
    for length in (0, 16, 17):
        with pytest.raises(AssertionError):
            bio.split_to(Bio(), length)
    with pytest.raises(AssertionError):
        bio.reset()
