"""What a callback raised while it made room for a request that is not its own: counted, kept, and told.

It does not decide what the request does: it goes on, as if the callback had found nothing
(`headway.core.mm.shrinker`, `charging` and `slowpath` do that). The one who asked for memory did not write
the callback, and cannot mend it; the one who registered it is told: in the log, and in the numbers of what
he registered. Only the words are kept, for an exception keeps all that its frames hold.

Bound: the first error is told, and each whose number is twice that of the one told before: n errors make
1 + log2(n) lines.

Source: Linux shrinkers cannot fail; Python's ``sys.unraisablehook`` for errors that nobody can be given.
"""

from __future__ import annotations

from typing import final

from headway.core.plan import Runtime


@final
class Raised:
    """What one callback raised so far. Statistics: of two at the same moment one may be lost."""

    __slots__ = ("count", "last")

    def __init__(self) -> None:
        self.count = 0
        self.last = ""  # the class, the words and the line of the last one

    def note(self, runtime: Runtime, what: str, error: Exception) -> None:
        """`what` (its part in the sentence) raised `error`, and the request goes on."""
        self.count = count = self.count + 1
        self.last = f"{type(error).__name__}: {error}{_line(error)}"
        if not count & (count - 1):
            times = f", {count} times so far" if count > 1 else ""
            runtime.report(f"{what} raised {self.last}; the request goes on without it{times}")


def _line(error: Exception) -> str:
    """Where it was raised."""
    place = error.__traceback__
    if place is None:
        return ""
    while place.tb_next is not None:
        place = place.tb_next
    code = place.tb_frame.f_code
    return f" ({code.co_filename}:{place.tb_lineno} {code.co_name})"
