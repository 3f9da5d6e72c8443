"""A Dask cluster as a place where work is done: `headway check --dask ADDRESS` spreads its runs over it.

It does not decide what is done, in which order results count, or how much is sent ahead (`headway.checker.crew`
does). What is sent is a function of headway's, by its name, and its arguments: the workers must have headway,
and see files at the same paths.

Source: Dask's futures, each submitted as impure: equal work is not thought to be done already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from headway.errors import MissingExtra, UsageError

_TIMEOUT_S = 10


@final
class Cluster:
    """The workers behind the scheduler at `address`. Close it: the cluster itself stays as it is."""

    def __init__(self, address: str) -> None:
        """Raises: UsageError if no scheduler answers there within 10 s, or it has no workers; MissingExtra."""
        scheme, separator, rest = address.partition("://")
        host, colon, port = (rest if separator else scheme).rpartition(":")
        if (separator and not scheme) or not host.strip("[]") or not colon or not port.isdigit():
            raise UsageError(f"dask {address!r}: no address of a scheduler; write tcp://HOST:PORT")
        try:
            from distributed import Client
        except ImportError as error:
            raise MissingExtra("a Dask cluster", "dask") from error
        try:
            self._client = Client(address, timeout=_TIMEOUT_S, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            said = " ".join(str(error).split())
            raise UsageError(f"dask {address!r}: no scheduler answers there: {said}") from error
        self.width = len(self._client.ncores())
        if not self.width:
            self.close()
            raise UsageError(f"dask {address!r}: the scheduler has 0 workers; start one at least")

    def submit(self, work: Callable[..., Any], *args: Any) -> Any:
        """A future: it has ``result()`` and ``cancel()``."""
        return self._client.submit(work, *args, pure=False)

    def close(self) -> None:
        self._client.close()
