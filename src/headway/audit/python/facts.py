"""What is known of a module after one reading: small records, without the syntax tree.

Decides what the rules can ask for. They are made by `module` in one process per core, travel to the
process that joins them, and are all the rules ever see. So a record holds strings and numbers only.

A *place* is where a pool lives, and names it:

    g|pkg.mod.NAME          a global, or an attribute made in the class body: one for all
    i|pkg.mod.Class.attr    an attribute set on `self`: one for each instance
    l|pkg.mod.f.name        a local variable
    p|pkg.mod.f#name        a parameter: whatever the caller passes
    @pkg.mod.f              whatever that function holds where it yields: a context manager
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from headway.audit.python.shapes import Kind, Shape

__all__ = [
    "Call", "Class", "Function", "Held", "Instance", "Loss", "Module", "Pool", "Root", "Submit", "Use",
]  # fmt: skip


class Held(NamedTuple):
    """A pool of which an element is held at some line."""

    place: str
    line: int  # where it was taken


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool that a module makes, or is given under a type."""

    place: str
    shape: Shape
    label: str  # as the source calls it
    line: int
    size: int | None = None  # None: not a constant here
    bounded: bool = True  # a queue: whether it has a limit, or may have one
    shared: bool = False  # it comes from outside, so others may hold it

    @property
    def kind(self) -> Kind:
        return self.shape.kind


@dataclass(frozen=True, slots=True)
class Instance:
    """An object of a class of the project."""

    ref: str


@dataclass(frozen=True, slots=True)
class Use:
    """A call that takes from a pool, or waits at it."""

    place: str
    line: int
    text: str
    held: tuple[Held, ...]  # what the function itself holds then, oldest first
    takes: bool  # it holds an element afterwards (or did in between)
    waits: bool  # False: it was told not to wait
    timed: bool  # the wait ends after a while
    loop: bool = False  # taken again and again, without giving back between
    spans: bool = False  # a lease whose body awaits
    tests: tuple[str, ...] = ()  # parameters and attributes on which it depends whether it happens
    restores: bool = False  # it gave back before what a caller holds
    guarded: bool = False  # its function has left before if something is there already


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function of the project, as far as its name tells."""

    target: str
    line: int
    text: str
    held: tuple[Held, ...]
    awaited: bool
    same: bool  # on the same `self`
    timed: bool
    passed: tuple[tuple[str, str], ...] = ()  # (parameter's position or name, place)
    given: tuple[str, ...] = ()  # which parameters got any argument: positions and names
    entered: bool = False  # `with f()`
    tests: tuple[str, ...] = ()  # parameters and attributes on which it depends whether it happens


@dataclass(frozen=True, slots=True)
class Submit:
    """Work handed to an executor."""

    place: str
    line: int
    target: str


@dataclass(frozen=True, slots=True)
class Loss:
    """A take outside of a context manager that some path does not give back."""

    place: str
    line: int
    text: str
    how: str  # "exception", "return", "never"
    at: int  # the line that loses it


@dataclass(slots=True)
class Function:
    """What one function does with pools."""

    ref: str  # dotted
    name: str  # as a reader calls it
    line: int
    end: int = 0  # its last line
    is_async: bool = False
    yields: tuple[Held, ...] | None = (
        None  # what it holds at its first yield; None: it does not yield
    )
    leased: tuple[Held, ...] = ()  # leases it returns to its caller
    parameters: tuple[str, ...] = ()  # without self
    uses: list[Use] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    submits: list[Submit] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    ends: list[tuple[str, tuple[Held, ...]]] = field(
        default_factory=list
    )  # events set, queues filled
    looked: set[str] = field(default_factory=set)  # queues whose length it asks before it waits


@dataclass(frozen=True, slots=True)
class Class:
    """A class: whom it inherits from, dotted where the name is known."""

    ref: str
    bases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Root:
    """A function that runs at a moment nobody chose."""

    ref: str
    how: str  # "__del__", "weakref callback", "signal handler"
    line: int


@dataclass(slots=True)
class Module:
    """One file."""

    path: str
    name: str  # dotted
    imports: dict[str, str]
    classes: dict[str, Class] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    roots: list[Root] = field(default_factory=list)
    puts: dict[str, list[tuple[int, bool]]] = field(
        default_factory=dict
    )  # queue: (line, in a loop)
    exports: dict[str, Pool | Instance] = field(default_factory=dict)  # what other files may import
