"""A schema that takes long to change holds up neither the store's work nor the thread that does it."""

from __future__ import annotations

import threading

import pytest

from orchestrator.errors import JournalUnavailableError
from orchestrator.journal.heads import Verdict
from orchestrator.journal.stores.migration import Migration
from orchestrator.journal.stores.sql import migrate, open_store
from tests.journal.postgres import Postgres
from tests.journal.writing import CALL, entries
from tests.waiting import until_sync

JOURNAL = entries(*CALL)


class Slow:
    """A store whose migration ends when it is told to."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.fails: list[Exception] = []
        self.runs = 0
        self.closed = 0
        self.interrupted = 0

    def migrate(self) -> None:
        self.runs += 1
        self.may_end.wait()
        if self.fails:
            raise self.fails.pop()

    def interrupt(self) -> None:
        self.interrupted += 1
        self.fails.append(JournalUnavailableError("cut"))
        self.may_end.set()

    def close(self) -> None:
        self.closed += 1


def test_whoever_asks_is_not_kept_until_the_end() -> None:
    store = Slow()
    migration = Migration(lambda: store, patience=0.01)
    for _ in range(2):
        with pytest.raises(JournalUnavailableError, match="brought up to date"):
            migration.ensure()
    assert store.runs == 1
    store.may_end.set()
    until_sync(lambda: store.closed == 1)
    patient = Migration(lambda: store)
    patient.ensure()
    patient.ensure()
    assert store.runs == 2


def test_a_migration_that_fails_is_tried_again() -> None:
    store = Slow()
    store.may_end.set()
    store.fails = [ValueError("no")]
    migration = Migration(lambda: store)
    with pytest.raises(ValueError, match="no"):
        migration.ensure()
    migration.ensure()
    assert (store.runs, store.closed) == (2, 2)


def test_one_that_hangs_is_interrupted() -> None:
    store = Slow()
    migration = Migration(lambda: store, patience=0.01, limit=0.0)

    def ended() -> bool:
        try:
            migration.ensure()
        except JournalUnavailableError:
            return store.closed > 0
        return False

    until_sync(ended)
    assert store.interrupted >= 1


def test_a_lock_that_somebody_holds_is_not_waited_for_long(postgres: Postgres) -> None:
    url = postgres.new_database()
    migrate(url)
    holder, opened = open_store(url), open_store(url, statement_timeout=60.0, lock_timeout=0.05)
    with holder.transaction() as connection:
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7220190301)")
        with pytest.raises(JournalUnavailableError, match="LockNotAvailable"):
            opened.migrate()
    opened.migrate()
    with opened.transaction() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "1min"
    holder.close()
    opened.close()


def test_a_store_migrates_itself_on_a_server(postgres: Postgres) -> None:
    store = open_store(postgres.new_database(), migrates=True)
    assert store.append(JOURNAL) == [Verdict.WRITE] * len(JOURNAL)
    store.close()
