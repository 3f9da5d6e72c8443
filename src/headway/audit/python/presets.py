"""The shapes of the usual libraries: a table, one row per constructor.

Decides what is known without configuration. A row is here only if its behaviour is documented: whether
it waits, for how long by default, and what gives back. Pools that raise at once when they are empty
(redis' `ConnectionPool`, psycopg2's) do not wait, so they have no row.

Source: the documentation of each library, read for the versions current in 2026.
"""

from __future__ import annotations

from dataclasses import replace

from headway.audit.python.shapes import Kind, Shape

_ACQUIRE = frozenset({"acquire"})
_RELEASE = frozenset({"release"})
_CONDITION_WAITS = frozenset({"wait", "wait_for"})
_QUEUE_WAITS = frozenset({"get", "put", "join"})


def _lock(name: str, kind: Kind = Kind.LOCK, *, awaits: bool = False) -> Shape:
    return Shape(name, kind, awaits, itself=True, takes=_ACQUIRE, gives=_RELEASE)


def _condition(name: str, kind: Kind, *, awaits: bool = False) -> Shape:
    """A lock that is also waited on; asyncio's may not be taken again by its holder."""
    return replace(_lock(name, kind, awaits=awaits), waits=_CONDITION_WAITS)


def _semaphore(name: str, *, awaits: bool = False, default: int | None = 1) -> Shape:
    keyword = "initial_value" if name.startswith(("anyio", "trio")) else "value"
    return Shape(
        name, Kind.SEMAPHORE, awaits, itself=True, takes=_ACQUIRE, gives=_RELEASE,
        size=keyword, size_at=0, size_default=default,
    )  # fmt: skip


def _limiter(name: str) -> Shape:
    return Shape(
        name, Kind.LIMITER, True, itself=True, takes=_ACQUIRE, gives=_RELEASE,
        size="total_tokens", size_at=0,
    )  # fmt: skip


def _queue(name: str, *, awaits: bool = False, size: str = "maxsize") -> Shape:
    """A queue; without a size it has no limit, so only its `get` waits."""
    return Shape(name, Kind.QUEUE, awaits, waits=_QUEUE_WAITS, size=size, size_at=0)


def _executor(name: str) -> Shape:
    return Shape(name, Kind.EXECUTOR, size="max_workers", size_at=0)


_STANDARD = (
    _lock("threading.Lock"),
    _lock("threading.RLock", Kind.REENTRANT),
    _condition("threading.Condition", Kind.REENTRANT),
    _lock("multiprocessing.Lock"),
    _lock("multiprocessing.RLock", Kind.REENTRANT),
    _lock("asyncio.Lock", awaits=True),
    _condition("asyncio.Condition", Kind.LOCK, awaits=True),
    _semaphore("threading.Semaphore"),
    _semaphore("threading.BoundedSemaphore"),
    _semaphore("multiprocessing.Semaphore"),
    _semaphore("multiprocessing.BoundedSemaphore"),
    _semaphore("asyncio.Semaphore", awaits=True),
    _semaphore("asyncio.BoundedSemaphore", awaits=True),
    _queue("queue.Queue"),
    _queue("queue.LifoQueue"),
    _queue("queue.PriorityQueue"),
    Shape("queue.SimpleQueue", Kind.QUEUE, waits=frozenset({"get"})),
    _queue("multiprocessing.Queue"),
    _queue("multiprocessing.JoinableQueue"),
    _queue("asyncio.Queue", awaits=True),
    _queue("asyncio.LifoQueue", awaits=True),
    _queue("asyncio.PriorityQueue", awaits=True),
    _executor("concurrent.futures.ThreadPoolExecutor"),
    _executor("concurrent.futures.ProcessPoolExecutor"),
    Shape("threading.Event", Kind.EVENT, waits=frozenset({"wait"})),
    Shape("asyncio.Event", Kind.EVENT, True, waits=frozenset({"wait"})),
    Shape("threading.Thread", Kind.THREAD, waits=frozenset({"join"})),
)

_STRUCTURED = (
    _lock("anyio.Lock", awaits=True),
    _lock("trio.Lock", awaits=True),
    _semaphore("anyio.Semaphore", awaits=True, default=None),
    _semaphore("trio.Semaphore", awaits=True, default=None),
    _limiter("anyio.CapacityLimiter"),
    _limiter("trio.CapacityLimiter"),
    Shape("anyio.Event", Kind.EVENT, True, waits=frozenset({"wait"})),
    Shape("trio.Event", Kind.EVENT, True, waits=frozenset({"wait"})),
)

_ENGINE = frozenset({"connect", "begin"})
_CLOSE = frozenset({"close"})


def _psycopg(name: str, *, awaits: bool = False) -> Shape:
    return Shape(
        name, Kind.POOL, awaits, leases=frozenset({"connection"}), takes=frozenset({"getconn"}),
        gives=frozenset({"putconn"}), timed=True, size="max_size", size_at=2,
    )  # fmt: skip


def _engine(name: str, kind: str, *, awaits: bool = False) -> Shape:
    """An SQLAlchemy engine: five connections and ten more, and an error after 30 s."""
    types = tuple(
        f"sqlalchemy{middle}.{kind}" for middle in ("", ".engine", ".engine.base", ".ext.asyncio")
    )
    return Shape(
        name, Kind.POOL, awaits, leases=_ENGINE, takes=frozenset({"connect", "raw_connection"}),
        returns=_CLOSE, timed=True, size="pool_size", unpooled=("NullPool", "StaticPool", ":memory:"),
        types=types,
    )  # fmt: skip


def _sessions(name: str, kind: str, *, awaits: bool = False) -> Shape:
    return Shape(
        name, Kind.POOL, awaits, leases=frozenset({"()", "begin"}), takes=frozenset({"()"}),
        returns=_CLOSE, timed=True, over=("bind",), types=(f"sqlalchemy.orm.session.{kind}",),
    )  # fmt: skip


def _session(name: str, *, awaits: bool = False) -> Shape:
    """A session made directly over an engine: `with Session(engine)`."""
    return Shape(
        name,
        Kind.POOL,
        awaits,
        itself=True,
        returns=_CLOSE,
        timed=True,
        over=("bind", "engine"),
        entered=True,
    )


_DATABASES = (
    _session("sqlalchemy.orm.Session"),
    _session("sqlmodel.Session"),
    _session("sqlalchemy.ext.asyncio.AsyncSession", awaits=True),
    _engine("sqlalchemy.create_engine", "Engine"),
    _engine("sqlalchemy.engine.create_engine", "Engine"),
    _engine("sqlalchemy.ext.asyncio.create_async_engine", "AsyncEngine", awaits=True),
    _sessions("sqlalchemy.orm.sessionmaker", "sessionmaker"),
    _sessions("sqlalchemy.ext.asyncio.async_sessionmaker", "async_sessionmaker", awaits=True),
    _psycopg("psycopg_pool.ConnectionPool"),
    _psycopg("psycopg_pool.AsyncConnectionPool", awaits=True),
    Shape(
        "asyncpg.create_pool", Kind.POOL, True, leases=_ACQUIRE, takes=_ACQUIRE, gives=_RELEASE,
        size="max_size", size_default=10, types=("asyncpg.Pool", "asyncpg.pool.Pool"),
    ),
    Shape(
        "aiopg.create_pool", Kind.POOL, True, leases=_ACQUIRE, takes=_ACQUIRE, gives=_RELEASE,
        size="maxsize", size_default=10, types=("aiopg.Pool", "aiopg.pool.Pool"),
    ),
    Shape(
        "aiomysql.create_pool", Kind.POOL, True, leases=_ACQUIRE, takes=_ACQUIRE, gives=_RELEASE,
        size="maxsize", size_default=10, types=("aiomysql.Pool",),
    ),
    Shape(
        "redis.BlockingConnectionPool", Kind.POOL, takes=frozenset({"get_connection"}), gives=_RELEASE,
        timed=True, size="max_connections", size_default=50, types=("redis.connection.BlockingConnectionPool",),
    ),
    Shape(
        "redis.asyncio.BlockingConnectionPool", Kind.POOL, True, takes=frozenset({"get_connection"}),
        gives=_RELEASE, timed=True, size="max_connections", size_default=50,
        types=("redis.asyncio.connection.BlockingConnectionPool",),
    ),
)  # fmt: skip

_STREAM = frozenset({"stream"})


def _mempool(name: str, *, awaits: bool = False) -> Shape:
    """A pool or budget of headway."""
    return Shape(
        name, Kind.POOL, awaits, leases=frozenset({"lease"}), takes=frozenset({"alloc"}),
        gives=frozenset({"free", "free_bulk", "hand_over", "transfer"}),
    )  # fmt: skip


_OTHERS = (
    Shape("httpx.Client", Kind.POOL, leases=_STREAM, timed=True, size_default=100),
    Shape("httpx.AsyncClient", Kind.POOL, True, leases=_STREAM, timed=True, size_default=100),
    replace(_mempool("headway.Mempool"), size="min_count", types=("headway.threaded.Mempool",)),
    _mempool("headway.Mempool.of"),
    _mempool("headway.Budget"),
    replace(_mempool("headway.aio.Mempool", awaits=True), over=("pool",)),
    _mempool("headway.aio.Mempool.of", awaits=True),
)

SHAPES: tuple[Shape, ...] = _STANDARD + _STRUCTURED + _DATABASES + _OTHERS
