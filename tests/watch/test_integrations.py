"""headway's own pools in place of other people's: they are watched like those, and their reserve is believed."""

import asyncio
import subprocess
import sys

import pytest

from headway import watch


@pytest.fixture
def session():
    with watch.watching() as session:
        yield session


def found(session):
    return [(f.kind, f.severity, f.hangs_from) for f in session.findings(final=True)]


def fair(size):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from headway.integrations.sqlalchemy import FairPool

    return sqlalchemy.create_engine(
        "sqlite://", poolclass=FairPool, pool_size=size, max_overflow=0,
        connect_args={"check_same_thread": False},
    )  # fmt: skip


@pytest.mark.parametrize("nested", [True, False])
def test_connections_of_a_fair_pool(session, nested):
    db = fair(3)
    with db.connect():
        if nested:
            db.connect().close()
    db.connect().close()
    db.dispose()
    assert found(session) == ([("nested", "warning", 3)] if nested else [])


@pytest.mark.parametrize("kept", [True, False])
def test_2_a_limiter_with_a_reserve_for_the_release_path(session, kept):
    """Item 2 with headway's limiter: closing waits for a token that connections wait for, or has one kept for it."""
    anyio = pytest.importorskip("anyio")
    from headway.integrations.anyio import CapacityLimiter

    async def main():
        limiter, db = CapacityLimiter(4, reserve=int(kept)), fair(3)
        await limiter.acquire()
        held = await anyio.to_thread.run_sync(db.connect)
        limiter.release()
        closing = limiter.entitled if kept else limiter
        await closing.acquire()
        held.close()
        closing.release()
        db.dispose()

    asyncio.run(main())
    kinds = {kind for kind, _, _ in found(session)}
    assert kinds == (set() if kept else {"release-path"})


def test_tasks_that_take_one_token_each_are_silent(session):
    pytest.importorskip("anyio")
    from headway.integrations.anyio import CapacityLimiter

    async def main():
        limiter = CapacityLimiter(2)

        async def one():
            async with limiter:
                await asyncio.sleep(0)

        await asyncio.gather(*[one() for _ in range(6)])

    asyncio.run(main())
    assert found(session) == []
    assert session.ledger.waits == {}


ONE_LOADER = """
import sys
from importlib.machinery import PathFinder

class Loader:
    def create_module(self, spec): return None
    def exec_module(self, module):
        with open(module.__spec__.origin, encoding="utf-8") as file:
            exec(compile(file.read(), module.__spec__.origin, "exec"), module.__dict__)

class Finder:
    loader = Loader()
    @classmethod
    def find_spec(cls, name, path, target=None):
        spec = PathFinder.find_spec(name, path) if name.startswith("headway") else None
        if spec is not None and str(spec.origin).endswith(".py"):
            spec.loader = cls.loader
        return spec

late = len(sys.argv) > 1
if not late:
    sys.meta_path.insert(0, Finder)
from headway import watch
with watch.watching() as session:
    import headway
    if late:
        sys.meta_path.insert(0, Finder)
        import colorsys  # anything that Finder does not know
    budget = headway.Budget(2, name="slots")  # which loads the shrinkers too, that have a patch of their own
    budget.alloc(1), budget.alloc(1)
print([finding.kind for finding in session.findings()])
"""


@pytest.mark.parametrize("late", [False, True])
def test_modules_that_share_a_loader_are_patched_when_they_are_there(late):
    """Also where that loader's finder was put in front of ours afterwards, as pytest does."""
    done = subprocess.run(
        [sys.executable, "-c", ONE_LOADER, *["late"] * late],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("['nested']\n", "")
