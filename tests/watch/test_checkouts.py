"""SQLAlchemy's checkouts are entered before they are made: what fails, waits or is late is seen all the same."""

import threading

import pytest

from headway import watch

sqlalchemy = pytest.importorskip("sqlalchemy")


@pytest.fixture
def session():
    with watch.watching(watch.Options(profile=True)) as session:
        yield session


def make(**options):
    options = {"poolclass": sqlalchemy.pool.QueuePool, "pool_size": 1, "max_overflow": 0, **options}
    return sqlalchemy.create_engine(
        "sqlite://", connect_args={"check_same_thread": False}, **options
    )


def found(session):
    return [(f.kind, f.severity, f.hangs_from) for f in session.findings(final=True)]


def test_a_checkout_that_fails_holds_nothing(session):
    def creator():
        raise OSError("no route")

    db = make(creator=creator)
    with pytest.raises(OSError):
        db.connect()
    assert session.ledger.out == []
    assert session.ledger.current().held == []


def test_a_wait_that_runs_out_of_time_holds_nothing(session):
    db = make(pool_timeout=0.01)
    with db.connect(), pytest.raises(sqlalchemy.exc.TimeoutError):
        db.connect()
    assert session.ledger.out == []
    assert session.ledger.waits == {}
    [finding] = session.findings(final=True)
    assert (finding.kind, finding.severity, finding.hangs_from) == ("nested", "risk", 1)
    assert "the waits have a time limit" in finding.why
    db.dispose()


def test_who_waits_for_a_connection_has_it_then(session):
    db = make(pool_timeout=60)
    held = db.connect()
    thread = threading.Thread(target=lambda: db.connect().close())
    thread.start()
    while not session.ledger.waits:
        assert thread.is_alive()
    [wait] = session.ledger.waits.values()
    assert wait.timeout_s == 60
    [holding] = session.ledger.out[0].out
    assert holding.owner is session.ledger.current()
    held.close()
    thread.join()
    assert session.ledger.out == []
    assert session.model() is None  # nobody took two at once
    db.dispose()


@pytest.mark.parametrize("end", ["detach", "invalidate"])
def test_what_is_detached_or_invalid_is_out_no_more(session, end):
    db = make()
    connection = db.connect()
    assert len(session.ledger.out) == 1
    getattr(connection, end)()
    assert session.ledger.out == []
    connection.close()
    with db.connect():
        assert len(session.ledger.out) == 1
    assert session.ledger.out == []
    db.dispose()


@pytest.mark.parametrize("both", [True, False])
def test_what_a_listener_of_checkin_takes_is_taken_while_holding(session, both):
    lock = threading.Lock()
    db = make()

    @sqlalchemy.event.listens_for(db, "checkin")
    def clean(dbapi_connection, record):
        with lock:
            pass

    if both:
        with lock:
            connection = db.connect()
        connection.close()
    db.connect().close()
    db.dispose()
    assert found(session) == ([("opposite-orders", "warning", 2)] if both else [])


def test_a_pool_that_makes_nobody_wait_is_left_alone(session):
    for poolclass in (sqlalchemy.pool.NullPool, sqlalchemy.pool.StaticPool):
        db = sqlalchemy.create_engine("sqlite://", poolclass=poolclass)
        with db.connect(), db.connect():
            assert session.ledger.out == []
    assert found(session) == []
