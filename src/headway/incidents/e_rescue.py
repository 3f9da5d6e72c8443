"""E-RESCUE (2013): a stacking driver waits for a bio that it has itself queued behind its own back.

The driver S cuts a bio in three, each piece in a bio of its set B, which holds two. Submitting a piece
inside a submission only queues it; it starts when S is done. S is not done before it has a third bio.
The slab is exhausted throughout. Two remedies: a *rescuer*, to which S's pieces are punted before it
waits, and which submits them; and *capacity*, a set that holds every piece of a request.

Source: Linux ``block/bio.c`` (``punt_bios_to_rescuer``, 3.11), after a deadlock of bcache and md.
"""

from __future__ import annotations

from headway.core.block.bio import READ, Bio
from headway.core.block.bioset import BIO_POOL_SIZE, BioSet
from headway.core.block.layer import Layer
from headway.core.block.line import Line, carry_out
from headway.core.block.workqueue import Workqueue
from headway.core.plan import Plan
from headway.incidents.stage import DEADLOCK, Fix, Incident, Stage

PIECES = 3


class _Disk(Layer):
    """Carries a bio out when it is its turn."""

    name = "D"

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def submit(self, bio: Bio, line: Line) -> None:
        who = self._stage.simulator.owner()
        self._stage.say(who, f"starts piece #{bio.offset}")
        self._stage.enter("D", self._complete(bio, bio.offset))

    def _complete(self, bio: Bio, number: int) -> Plan[None]:
        yield from self._stage.turn()
        self._stage.say("D", f"completes piece #{number}")
        bio.complete()


class _Cutter(Layer):
    """The stacking driver."""

    name = "S"

    def __init__(self, stage: Stage, below: Layer, bios: BioSet) -> None:
        self._stage, self.below, self._bios = stage, (below,), bios

    def submit(self, bio: Bio, line: Line) -> Plan[None]:
        actor = self._stage.simulator.owner()
        for number in range(1, PIECES + 1):
            if not self._bios.pool.reserve_count:
                self._stage.say(
                    actor, f"asks B for piece #{number}", "the reserve is empty: it waits"
                )
            piece = yield from self._bios.alloc(line)
            bio.chain(piece.aim(READ, number, None, 0))
            self._stage.say(actor, f"piece #{number} from B", "only queued: S is not done")
            line.send(piece, self.below[0])
        bio.complete()


def play(stage: Stage, fix: str | None) -> str:
    size = PIECES if fix == "capacity" else BIO_POOL_SIZE
    rescuer = None
    if fix == "rescuer":
        rescuer = Workqueue(stage.simulator, "R", limit=1, rescuer=True)
        stage.enter("R", rescuer.start())
    bios = BioSet(stage.simulator, "B", min_count=size, rescuer=rescuer)
    stage.enter("T1", _read(stage, _Cutter(stage, _Disk(stage), bios), rescuer))
    ended = stage.play()
    if ended != DEADLOCK:
        bios.close()
    return ended


def _read(stage: Stage, cutter: Layer, rescuer: Workqueue | None) -> Plan[None]:
    yield from stage.turn()
    stage.say("T1", f"submits a bio that S cuts in {PIECES}")
    yield from carry_out(cutter, Bio(READ))
    stage.say("T1", "its bio is complete")
    if rescuer is not None:
        yield from rescuer.close()


INCIDENT = Incident(
    "E-RESCUE",
    "a driver waits for a bio that is queued behind it",
    DEADLOCK,
    (
        Fix("rescuer", "before the wait, give what is queued to a rescuer"),
        Fix("capacity", "a set that holds every piece of a request"),
    ),
    play,
)
