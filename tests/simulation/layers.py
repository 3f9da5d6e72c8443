"""Which layers simulated stacks are made of: to add one, add a line to `KINDS`.

A line says how a layer is written when the machine is new, and how it is opened again on what the disks
kept. `again` is for layers that have a format of their own, or that do mischief; without it the same text
is used. `at_rest`: what is above may read its header through this layer before the stack is started.
`header`: it reads one itself, so all below must be `at_rest`. `stops`: after an I/O error it takes no more
writes, for ever.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

BLOCK = 512
LUKS = "key-file=k,key-bits=256,iterations=1000"  # quick: it keeps no secret


class Pick:
    """Chance, as the lines below use it."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def __call__(self, *choices: object) -> object:
        return self._chance.choice(choices)

    def size(self, *blocks: int) -> int:
        return BLOCK * self._chance.choice(blocks)


def same(spec: str) -> str:
    return spec


def linear(spec: str) -> str:
    """What it leaves of its place when its mischief is over."""
    return "linear"


def without(*words: str) -> Callable[[str], str]:
    """The same, without the options that begin so."""

    def again(spec: str) -> str:
        return ",".join(part for part in spec.split(",") if not part.startswith(words))

    return again


@dataclass(frozen=True)
class Kind:
    write: Callable[[Pick], str]
    again: Callable[[str], str] = same
    at_rest: bool = False
    header: bool = False
    stops: bool = False


KINDS = {
    "linear": Kind(lambda p: f"linear,offset={p.size(0, 1, 3)}", at_rest=True),
    "stripe": Kind(lambda p: f"stripe,with=disk,chunk={p.size(1, 2, 3, 8)}"),
    "mirror": Kind(
        lambda p: f"mirror,leg=disk,window={p.size(2, 8)},sync={p('no', 'no', 'yes')}",
        without("sync="), at_rest=True,
    ),
    "mirror of three": Kind(lambda p: f"mirror,leg=disk,leg=disk,window={p.size(8)}", at_rest=True),
    "bounce": Kind(lambda p: f"bounce,buffer={p.size(1, 2, 8)},reserve={p(1, 2)}"),
    "crypt": Kind(
        lambda p: f"crypt,format=plain,key-file=k{p(1, 2)},sector=512,buffer={p.size(1, 2, 8)},reserve={p(1, 2)}",
        without("create="), at_rest=True,
    ),
    "crypt of LUKS": Kind(
        lambda p: f"crypt,create=yes,{LUKS},{p('format=luks1', 'format=luks2,sector=512')},"
        f"{p('offset=2MiB', *3 * ['header=header disk'])},buffer={p.size(1, 8)}",
        at_rest=True, header=True,
    ),
    "integrity": Kind(
        lambda p: f"integrity,create=yes,block=512,section={p(1, 3, 8)}" + p("", ",key-file=i"),
        without("create="), header=True, stops=True,
    ),
    "thin": Kind(
        lambda p: f"thin,create=yes,block=512,extent={p.size(1, 4)}",
        without("create="), header=True, stops=True,
    ),
    "writecache": Kind(
        lambda p: f"writecache,cache=prompt disk,block=512,section={p(4, 9)},buffer={p.size(1, 4)}", stops=True
    ),
    "delay": Kind(lambda p: f"delay,seconds={p(0, 0.001, 0.5)}", linear, at_rest=True),
    "flaky": Kind(
        lambda p: f"flaky,up={p(7, 40)},down={p(1, 2)},ops={p('reads', 'writes', 'all')}", linear, at_rest=True
    ),
}  # fmt: skip

ELSEWHERE = {
    "ebs": "only the outermost has use for it: simulated users ask for whole blocks",
    "error": "a block that never works: the simulated disks fail by chance",
    "qcow2": "cannot be written: its own test reads it, with failures",
    "verity": "cannot be written: `image` reads through it",
}


def some_layers(chance: random.Random, count: int) -> list[str]:
    """Specifications, the outermost last."""
    pick, found, at_rest = Pick(chance), [], True
    while len(found) < count:
        kind = KINDS[chance.choice(list(KINDS))]
        if kind.header and not at_rest:
            continue
        found.append(kind.write(pick))
        at_rest = at_rest and kind.at_rest
    return found


def kind_of(spec: str) -> Kind:
    return KINDS[spec.split(",")[0]]


def opened_again(specs: list[str]) -> list[str]:
    """The same layout, on what the disks kept, and without the mischief."""
    return [kind_of(spec).again(spec) for spec in specs]


def may_stop(specs: list[str]) -> bool:
    return any(kind_of(spec).stops for spec in specs)


def begun(specs: list[str]) -> list[str]:
    """A flaky layer below one that stops at the first error, or writes a header, must let it begin."""
    if any("format=luks" in spec for spec in specs):  # a header is written in many pieces
        return [spec.replace("up=7", "up=4000").replace("up=40,", "up=4000,") for spec in specs]
    if may_stop(specs):
        return [spec.replace("up=7", "up=400").replace("up=40,", "up=700,") for spec in specs]
    return specs
