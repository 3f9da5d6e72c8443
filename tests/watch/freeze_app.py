"""A FastAPI service that freezes: worker threads wait for connections, and giving one back needs a worker thread.

RELEASE=reserve keeps a worker thread that only the release path may use; WORKERS and CONNECTIONS size the rest.
(FastAPI's own dependencies that are plain generators did the same, until it kept a thread for their ends.)
"""

import contextlib
import os
from typing import Annotated

import anyio.to_thread
import sqlalchemy
from fastapi import Depends, FastAPI
from sqlalchemy.orm import Session

WORKERS, CONNECTIONS = int(os.environ["WORKERS"]), int(os.environ["CONNECTIONS"])
engine = sqlalchemy.create_engine(
    "sqlite://", poolclass=sqlalchemy.pool.QueuePool, pool_size=CONNECTIONS, max_overflow=0,
    pool_timeout=float(os.environ.get("POOL_TIMEOUT", 30)), connect_args={"check_same_thread": False},
)  # fmt: skip


@contextlib.asynccontextmanager
async def lifespan(app):
    anyio.to_thread.current_default_thread_limiter().total_tokens = WORKERS
    # The release path's own thread; otherwise it needs one of those that wait for a connection.
    app.release = anyio.CapacityLimiter(1) if os.environ.get("RELEASE") == "reserve" else None
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/pid")
async def pid():
    return os.getpid()


async def session():
    session = Session(engine)
    try:
        yield session
    finally:
        await anyio.to_thread.run_sync(session.close, limiter=app.release)


@app.get("/")
def read(session: Annotated[Session, Depends(session)]):
    return session.execute(sqlalchemy.text("select 1")).scalar()
