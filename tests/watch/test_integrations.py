"""headway's own pools in place of other people's: they are watched like those, and their reserve is believed."""

import asyncio

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
