"""A FastAPI service that freezes: worker threads wait for connections, and giving one back needs a worker thread.

RELEASE=reserve keeps a worker thread that only the release path may use; WORKERS and CONNECTIONS size the rest.
"""

import contextlib
import os

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
    app.reserve = anyio.CapacityLimiter(1)
    yield


app = FastAPI(lifespan=lifespan)


if os.environ.get("RELEASE") == "reserve":

    async def session():
        session = Session(engine)
        try:
            yield session
        finally:
            await anyio.to_thread.run_sync(session.close, limiter=app.reserve)

else:

    def session():  # as the documentation has it: both ends run in a worker thread
        session = Session(engine)
        try:
            yield session
        finally:
            session.close()


@app.get("/")
def read(session: Session = Depends(session)):
    return session.execute(sqlalchemy.text("select 1")).scalar()
