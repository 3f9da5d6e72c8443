"""anyio's limiter with a reserve, and the freeze of a web service with and without it."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import headway as hw

anyio = pytest.importorskip("anyio")

from examples import limiter_freeze  # noqa: E402
from headway.integrations.anyio import CapacityLimiter  # noqa: E402


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        with anyio.fail_after(60):
            await main()

    anyio.run(limited)


def test_the_example_freezes_before_and_not_after() -> None:
    assert anyio.run(limiter_freeze.before).startswith("frozen: 0 of 8")
    assert anyio.run(limiter_freeze.after) == "8 of 8 requests answered"


def test_it_does_what_anyios_does() -> None:
    async def main() -> None:
        limiter = CapacityLimiter(2, name="threads")
        assert isinstance(limiter, anyio.CapacityLimiter)
        assert await anyio.to_thread.run_sync(abs, -1, limiter=limiter) == 1
        async with limiter:
            with pytest.raises(RuntimeError, match="already holding"):
                await limiter.acquire()
            limiter.acquire_on_behalf_of_nowait("other")
            with pytest.raises(anyio.WouldBlock):
                limiter.acquire_on_behalf_of_nowait("third")
            seen = limiter.statistics()
            assert (seen.borrowed_tokens, seen.total_tokens, seen.tasks_waiting) == (2, 2, 0)
            assert "other" in seen.borrowers and limiter.available_tokens == 0
            limiter.release_on_behalf_of("other")
        with pytest.raises(RuntimeError, match="isn't holding"):
            limiter.release()
        limiter.acquire_nowait()
        limiter.release()
        limiter.total_tokens = 5
        assert (limiter.total_tokens, limiter.borrowed_tokens) == (5, 0)
        assert CapacityLimiter(math.inf).total_tokens == math.inf
        assert CapacityLimiter(math.inf).available_tokens == math.inf
        with pytest.raises(hw.UsageError):
            CapacityLimiter(2.5)

    run(main)


def test_a_cancelled_wait_keeps_no_token_and_more_tokens_serve_who_waits() -> None:
    async def main() -> None:
        limiter = CapacityLimiter(1)
        limiter.acquire_on_behalf_of_nowait("first")
        served: list[str] = []

        async def wait_for_one(who: str) -> None:
            await limiter.acquire_on_behalf_of(who)
            served.append(who)

        async with anyio.create_task_group() as cancelled, anyio.create_task_group() as kept:
            cancelled.start_soon(wait_for_one, "cancelled")
            await anyio.lowlevel.checkpoint()
            kept.start_soon(wait_for_one, "kept")
            while limiter.statistics().tasks_waiting < 2:
                await anyio.lowlevel.checkpoint()

            limiter.total_tokens = 2
            while not served:
                await anyio.lowlevel.checkpoint()
            assert served == ["cancelled"]
            limiter.release_on_behalf_of("cancelled")
            while len(served) < 2:
                await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(0):
            await limiter.acquire_on_behalf_of("late")
        assert limiter.statistics().borrowers == ("first", "kept") or set(
            limiter.statistics().borrowers
        ) == {"first", "kept"}
        assert limiter.borrowed_tokens == 2 and limiter.statistics().tasks_waiting == 0

    run(main)


def test_the_entitled_do_not_wait_for_those_who_wait() -> None:
    async def main() -> None:
        limiter = CapacityLimiter(2, reserve=1)
        async with limiter:
            assert (limiter.available_tokens, limiter.entitled.available_tokens) == (0, 1)
            async with limiter.entitled:
                assert limiter.borrowed_tokens == 2
            with hw.noreclaim():
                limiter.acquire_on_behalf_of_nowait("cleanup")
            limiter.release_on_behalf_of("cleanup")
        assert limiter.entitled.entitled is limiter.entitled

    run(main)


@pytest.mark.parametrize("reserve", [0, 1])
def test_a_fastapi_service(reserve: int) -> None:
    """The dependency of the user's report, in a real application, without a server in front."""
    fastapi = pytest.importorskip("fastapi")

    async def main() -> None:
        limiter = CapacityLimiter(3, reserve=reserve)
        releasing = limiter.entitled if reserve else limiter
        service = limiter_freeze.Service(limiter, releasing)
        app = fastapi.FastAPI()

        async def connection() -> Any:
            await anyio.to_thread.run_sync(service.connections.take, limiter=limiter)
            try:
                yield "connection"
            finally:
                await anyio.to_thread.run_sync(service.connections.give_back, limiter=releasing)

        needed = fastapi.Depends(connection)

        async def endpoint(got: Any = needed) -> dict[str, str]:
            await service.rush.wait()
            return {"got": got}

        app.get("/")(endpoint)
        answers: list[int] = []

        async def get() -> None:
            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    answers.append(message["status"])

            scope = {
                "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
                "scheme": "http", "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "",
                "headers": [], "client": ("test", 1), "server": ("test", 80),
            }  # fmt: skip
            try:
                await app(scope, receive, send)
            except ConnectionAbortedError:
                answers.append(500)

        async with anyio.create_task_group() as requests:
            for _ in range(8):
                requests.start_soon(get)
            while service.connections.waiting < 3 - reserve or service.connections._count:
                await anyio.sleep(0)
            service.rush.set()
            while answers.count(200) < 8 and not service.frozen():
                await anyio.sleep(0)
            assert service.frozen() == (not reserve)
            service.connections.close()

    run(main)
