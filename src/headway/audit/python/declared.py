"""A project's own pools, named by configuration.

Decides what the table `[tool.headway.audit.names]` of `pyproject.toml` may say, and makes shapes of it.
A key is the dotted name of a class or function whose result is a pool, or `*.attribute` for an
attribute of that name wherever it stands; the values say how it is used:

    [tool.headway.audit.names]
    "app.db.Pool" = ["lease connection", "take checkout", "give checkin", "async"]
    "app.db.get_pool" = ["like psycopg_pool.ConnectionPool"]
    "*.db_pool" = ["like asyncpg.create_pool"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from headway.audit.python.presets import SHAPES
from headway.audit.python.shapes import Kind, Shape
from headway.errors import UsageError

_METHODS = {
    "lease": "leases",
    "take": "takes",
    "give": "gives",
    "return": "returns",
    "wait": "waits",
}
_WORDS = (
    "like NAME, lease METHOD, take METHOD, give METHOD, return METHOD, wait METHOD, size ARGUMENT, "
)
_WORDS += "kind KIND, with, async, timed"


def declared(names: Mapping[str, Sequence[str]]) -> tuple[Shape, ...]:
    """The shapes of these names.

    Raises: UsageError if a word is not known, or a name says nothing.
    """
    return tuple(_shape(name, words) for name, words in sorted(names.items()))


def _shape(name: str, words: Sequence[str]) -> Shape:
    if isinstance(words, str) or not words:
        raise UsageError(f"audit name {name!r} needs a list of what it does: {_WORDS}")
    shape = Shape(name, Kind.POOL)
    for phrase in words:
        word, _, rest = phrase.strip().partition(" ")
        rest = rest.strip()
        if word in _METHODS and rest:
            field = _METHODS[word]
            shape = replace(shape, **{field: getattr(shape, field) | {rest}})
        elif word == "like" and rest:
            shape = replace(_preset(name, rest), name=name, types=())
        elif word == "size" and rest:
            shape = replace(shape, size=rest)
        elif word == "kind" and rest in list(Kind):
            shape = replace(shape, kind=Kind(rest))
        elif word == "with" and not rest:
            shape = replace(shape, itself=True)
        elif word == "async" and not rest:
            shape = replace(shape, awaits=True)
        elif word == "timed" and not rest:
            shape = replace(shape, timed=True)
        else:
            raise UsageError(
                f"audit name {name!r} says {phrase!r}, which means nothing; it may say {_WORDS}"
            )
    return shape


def _preset(name: str, like: str) -> Shape:
    for shape in SHAPES:
        if like in (shape.name, *shape.types):
            return shape
    raise UsageError(
        f"audit name {name!r} is to be like {like!r}, which is not known; see the page on names"
    )
