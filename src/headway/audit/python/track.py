"""Which pools a function holds, line by line, and which takes some path forgets.

Decides what is held on the paths that meet: only what all of them hold. So a pool is said to be held
where it surely is, and a rule that needs it held stays silent in doubt. Knows no syntax; `walk` tells
it what happens.

A take outside of a context manager is *lost* if a path leaves the function without giving it back: by
an exception that no `finally` meets, by a `return`, or because nobody gives it back at all. A function
that only takes, or only gives back, is half of a protocol (`__enter__`, a signal) and loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from headway.audit.python.facts import Held, Loss
from headway.audit.python.shapes import Kind


@dataclass(slots=True, eq=False)
class Open:
    """An element that is held, from its take to the end of its hold."""

    place: str
    kind: Kind | None  # None: behind a context manager of the project
    line: int
    text: str
    managed: bool  # some context manager gives it back
    element: str = ""  # the variable
    protected: bool = False  # a `finally` or a handler gives it back
    risky: int = 0  # the first line after the take that may raise
    escaped: bool = False  # somebody else has it too, and may give it back
    owner: str = ""  # the exit stack that holds it


class Track:
    """The holds of one function while it is walked."""

    def __init__(self) -> None:
        self.opens: list[Open] = []
        self.losses: list[Loss] = []
        self._given: set[str] = set()
        self.returned: set[str] = (
            set()
        )  # given back here, but taken by a caller or a `with` outside
        self._left: list[tuple[Open, str, int]] = []
        self.guards: list[frozenset[str]] = []  # what each enclosing `finally` gives back

    def held(self, without: str = "") -> tuple[Held, ...]:
        return tuple(Held(each.place, each.line) for each in self.opens if each.place != without)

    def take(self, fresh: Open) -> None:
        fresh.protected = any(
            fresh.place in guard or fresh.element in guard for guard in self.guards
        )
        fresh.managed = fresh.managed or fresh.place in self.returned  # it restores somebody's hold
        self.opens.append(fresh)

    def give(self, place: str, element: str = "", moved: bool = False) -> None:
        """One element of this pool went back; by its variable if that is known.

        ``moved``: its next owner gives it back, and has it already if the element was passed on.
        """
        self._given.add(place)
        mine = [each for each in self.opens if each.place == place]
        same = [each for each in mine if not each.managed]
        if not same:
            self.returned.add(place)
            for each in [each for each in mine if not each.owner][-1:]:
                self.opens.remove(each)  # `with lock:` around a release: not held until taken again
        named = [each for each in same if each.element and each.element == element]
        for each in (named or same)[-1:]:
            if each.risky and not each.protected and not (moved and each.escaped):
                self._lose(each, "exception", each.risky)
            self.opens.remove(each)

    def drop(self, gone: Open) -> None:
        if gone in self.opens:
            self.opens.remove(gone)

    def protect(self, names: frozenset[str]) -> None:
        """A `try` begins whose `finally` gives these places or variables back."""
        self.guards.append(names)
        for each in self.opens:
            if each.place in names or each.element in names:
                each.protected = True

    def by_element(self, name: str) -> list[Open]:
        return [each for each in self.opens if each.element == name and name]

    def risk(self, line: int) -> None:
        for each in self.opens:
            each.risky = each.risky or line

    def leave(self, line: int, how: str) -> None:
        """The function ends here."""
        for each in self.opens:
            if not each.managed and not each.protected and not each.escaped:
                self._left.append((each, how, line))

    def merge(self, paths: list[list[Open]]) -> None:
        """Paths meet: what all of them hold is held."""
        first = paths[0]
        self.opens = [each for each in first if all(each in other for other in paths[1:])]

    def finish(self) -> None:
        """The walk is over: judge what was left."""
        for each, how, line in self._left:
            if each.place in self._given:
                if how == "return":
                    self._lose(each, how, line)
            elif each.kind is Kind.POOL and each.element:
                self._lose(each, "never", line)

    def _lose(self, lost: Open, how: str, at: int) -> None:
        if all(loss.line != lost.line for loss in self.losses):
            self.losses.append(Loss(lost.place, lost.line, lost.text, how, at))
