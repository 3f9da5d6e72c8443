"""Item 2 end to end: a FastAPI service under uvicorn and a real client freezes, is explained, and is cured."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("typer")
httpx = pytest.importorskip("httpx")
for name in ("fastapi", "uvicorn", "sqlalchemy"):
    pytest.importorskip(name)

REQUESTS = 20


@contextlib.contextmanager
def service(folder, **settings):
    """The service under watch: the process, and an HTTP client's transport to it."""
    path, report = folder / "app.sock", folder / "report.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "headway", "watch", "--stall", "0.5", "--report", str(report), "--",
         sys.executable, "-m", "uvicorn", "tests.watch.freeze_app:app", "--uds", str(path)],
        env={**os.environ, "WORKERS": "4", "CONNECTIONS": "3", "PYTHONPATH": ".", **settings},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    pid = None
    try:
        until(process.stderr, "Uvicorn running")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as http:
            pid = http.get("http://app/pid").json()
            assert http.get("http://app/").json() == 1
        yield process, httpx.AsyncHTTPTransport(uds=str(path))
    finally:
        if pid is not None:
            os.kill(pid, signal.SIGKILL)  # it is frozen: it would not end for less
        else:
            process.kill()
        process.communicate(timeout=60)


def until(stream, word):
    for line in stream:
        if word in line:
            return line
    raise AssertionError(f"the stream ended without {word!r}")


async def ask(transport, enough):
    """Many requests at once; the answers, as soon as `enough` says so."""
    async with httpx.AsyncClient(transport=transport, timeout=60) as http:
        tasks = [asyncio.create_task(http.get("http://app/")) for _ in range(REQUESTS)]
        await enough(tasks)
        done = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [task.result().status_code for task in done]


def test_2_a_service_freezes_and_says_why(tmp_path):
    with service(tmp_path) as (process, transport):

        async def frozen(tasks):
            await asyncio.to_thread(until, process.stderr, "release:")

        answers = asyncio.run(ask(transport, frozen))
        assert len(answers) < REQUESTS
        found = json.loads((tmp_path / "report.json").read_text())
        while found["hang"] is None:  # told first, then written
            found = json.loads((tmp_path / "report.json").read_text())
    (risk,) = found["risks"]
    assert (risk["kind"], risk["severity"], risk["hangs_from"]) == ("release-path", "risk", 4 + 3)
    held = {holder["pool"].partition(" made")[0] for holder in found["hang"]["holders"]}
    assert held == {"SQLAlchemy pool of 3", "limiter of 4"}
    assert found["hang"]["release"]["frees"] == found["hang"]["release"]["of"]


def test_2_a_worker_thread_kept_for_the_release_path_cures_it(tmp_path):
    with service(tmp_path, RELEASE="reserve") as (_, transport):
        assert asyncio.run(ask(transport, asyncio.wait)) == [200] * REQUESTS
        found = json.loads((tmp_path / "report.json").read_text())
    assert found == {"risks": [], "hang": None}
