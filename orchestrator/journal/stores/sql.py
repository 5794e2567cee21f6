"""Journals in SQLite or PostgreSQL, through SQLAlchemy's core; the schema is Alembic's.

A batch is one transaction: read the heads of its calls (locked, in one order, so that two nodes never wait for each other in a
circle), judge every entry, write what is to be written, move the heads. SQLite is told to survive a power cut before a commit
returns, since an acknowledged entry must.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import URL, Connection, Engine, bindparam, create_engine, delete, event, insert, inspect, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError

from orchestrator.errors import JournalContentError, JournalFormatError, JournalUnavailableError, SettingsError
from orchestrator.journal.entries import Entry
from orchestrator.journal.heads import Head, Verdict
from orchestrator.journal.stores import schema
from orchestrator.journal.stores.base import PRUNED_AT_ONCE, SessionRow, judge_batch
from orchestrator.journal.stores.interrupts import Interrupter
from orchestrator.journal.stores.memory import row_after
from orchestrator.journal.stores.migration import MIGRATION_LOCK_TIMEOUT, MIGRATION_TIMEOUT, Migration

__all__ = ["SqlStore", "migrate", "open_store", "store_place"]

_MIGRATIONS = Path(__file__).parent / "migrations"
_HEAD_COLUMNS = tuple(schema.sessions.c[name] for name in SessionRow.__struct_fields__)
_ENTRY_COLUMNS = tuple(schema.entries.c[name] for name in Entry.__struct_fields__)
# Classes of the server's errors that are up to what was to be written: data, integrity, and limits of the program.
_CONTENT = ("22", "23", "54")
# Parameters of one statement: SQLite takes 32,766.
_CHUNK = 5000
# How often, and after how many seconds, a change of SQLite's mode is tried again.
_MODE_CHANGES, _MODE_PAUSE = 50, 0.02


def open_store(
    url: str,
    *,
    connect_timeout: float = 5.0,
    statement_timeout: float = 10.0,
    lock_timeout: float | None = None,
    migrates: bool = False,
    reads_only: bool = False,
) -> SqlStore:
    """Open the store at a URL, `sqlite:///path` or `postgresql://user@host/database`. Nothing is connected yet.

    With `migrates` the first batch brings the schema to the present version, whenever the store can be reached then. With
    `reads_only` the database itself refuses every change, and nobody who writes is kept waiting; ask `exists` first. Timeouts
    are seconds; that for locks is that for statements unless given. Raises SettingsError, without the URL's password, for one
    that is neither.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(parsed, connect_args={"timeout": statement_timeout, "check_same_thread": False})
        event.listen(engine, "connect", _prepare_sqlite_reader if reads_only else _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite_reader if reads_only else _begin_sqlite)
        return SqlStore(engine, migrates=migrates)
    if parsed.get_backend_name() == "postgresql":
        lock_timeout = statement_timeout if lock_timeout is None else lock_timeout
        options = f"-c statement_timeout={int(statement_timeout * 1000)} -c lock_timeout={int(lock_timeout * 1000)}"
        if reads_only:
            options += " -c default_transaction_read_only=on"
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            # A connection that died while it was idle is found before a batch is trusted to it.
            pool_pre_ping=True,
            connect_args={"connect_timeout": max(1, int(connect_timeout)), "options": options},
        )
        return SqlStore(engine, migration=Migration(lambda: _open_to_migrate(url)) if migrates else None)
    raise SettingsError(f"journals are kept in sqlite or postgresql, not in {parsed.get_backend_name()}")


def store_place(url: str) -> str:
    """Return where a store is, for people: without account, password and options. Raises SettingsError for no URL."""
    parsed = _parsed(url)
    host = f"{parsed.host or ''}{'' if parsed.port is None else f':{parsed.port}'}"
    return f"{parsed.get_backend_name()}://{host}/{parsed.database or ''}"


def migrate(url: str) -> None:
    """Bring the schema of the store at a URL to the present version. Safe to call from several nodes at once.

    On a server its statements may take as long as a large table needs, and wait for locks only shortly. Raises
    JournalUnavailableError where the store does not answer, or a lock was not to be had: try again.
    """
    store = _open_to_migrate(url)
    try:
        store.migrate()
    finally:
        store.close()


def _open_to_migrate(url: str) -> SqlStore:
    return open_store(url, statement_timeout=MIGRATION_TIMEOUT, lock_timeout=MIGRATION_LOCK_TIMEOUT)


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # A port that is no number is the latter, and its text may be a part of a password.
        raise SettingsError("the journal's address is no URL: write sqlite:///path or postgresql://user@host/name") from None


def _prepare_sqlite(connection: Any, _: Any) -> None:
    # The driver's own handling of transactions begins them late, which would let two writers read the same head.
    connection.isolation_level = None
    _use_wal(connection)
    connection.execute("PRAGMA synchronous=FULL")


def _use_wal(connection: sqlite3.Connection) -> None:
    # A new file changes its mode once in its life. Of several that do it at once SQLite refuses all but one at once, whatever
    # their timeout, since a wait could be for each other.
    for _ in range(_MODE_CHANGES):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(_MODE_PAUSE)
    connection.execute("PRAGMA journal_mode=WAL")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _prepare_sqlite_reader(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only=ON")


def _begin_sqlite_reader(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


class SqlStore:
    """See `JournalStore`."""

    def __init__(self, engine: Engine, *, migrates: bool = False, migration: Migration | None = None) -> None:
        self._engine = engine
        # In the way of the first batch, or beside it.
        self._migrates = migrates
        self._migration = migration
        # Compiled once, and its values given to the driver as they are: thousands of rows a second go through it.
        compiled = insert(schema.entries).compile(dialect=engine.dialect)
        self._insert = str(compiled)
        self._row_of = msgspec.structs.astuple if compiled.positional else msgspec.structs.asdict
        # SQLite has a limit of its own, and no server.
        self._interrupter = Interrupter(engine) if engine.dialect.name == "postgresql" else None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that commits at the end of the block.

        Errors of the database are JournalUnavailableError, or JournalContentError where it is up to what was to be written.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            # The driver's own text may hold what was to be written: only its class is told.
            origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
            if isinstance(error, DataError | IntegrityError) or str(getattr(origin, "sqlstate", "")).startswith(_CONTENT):
                raise JournalContentError(f"the journal's store refuses an entry: {type(origin).__name__}") from None
            raise JournalUnavailableError(f"the journal's store does not answer: {type(origin).__name__}") from None

    def migrate(self) -> None:
        """Bring the schema to the present version; see the function of this name."""
        # Only here, in the journal's thread: a gateway that comes back must not keep callers waiting for it.
        from alembic import command
        from alembic.config import Config

        with self.transaction() as connection:
            if connection.dialect.name == "postgresql":
                # One node migrates, the others wait for it and find nothing to do.
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7220190301)")
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        self._migrates = False

    def exists(self) -> bool:
        """Whether there is a journal at all. Makes nothing, not even the empty file that SQLite would make."""
        url = self._engine.url
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
            return False
        with self.transaction() as connection:
            there = inspect(connection).get_table_names()
        return set(schema.metadata.tables) <= set(there)

    def append(self, entries: Sequence[Entry]) -> list[Verdict]:
        """See `JournalStore.append`."""
        if self._migrates:
            self.migrate()
        if self._migration is not None:
            self._migration.ensure()
        try:
            return self._append(entries)
        except JournalContentError:
            # Two nodes that begin one call in the same moment collide, and the one that comes later sees the other's call.
            return self._append(entries)
        except (ValueError, TypeError, OverflowError, msgspec.MsgspecError, JournalFormatError) as error:
            raise JournalContentError(f"an entry cannot be written: {type(error).__name__}") from None

    def _append(self, entries: Sequence[Entry]) -> list[Verdict]:
        wanted = sorted({entry.session_id for entry in entries})
        with self.transaction() as connection:
            known = {row.session_id: row for row in self._rows(connection, wanted)}
            heads = {row.session_id: _head(row) for row in known.values()}
            verdicts = judge_batch(heads, entries)
            written = [entry for entry, verdict in zip(entries, verdicts, strict=True) if verdict is Verdict.WRITE]
            if written:
                connection.exec_driver_sql(self._insert, [self._row_of(entry) for entry in written])
                self._move_heads(connection, known, written)
        return verdicts

    def read(self, session_id: str, after_seq: int = 0) -> list[Entry]:
        """See `JournalStore.read`."""
        columns = schema.entries.c
        query = select(*_ENTRY_COLUMNS).where(columns.session_id == session_id, columns.seq > after_seq).order_by(columns.seq)
        with self.transaction() as connection:
            return [Entry(*row) for row in connection.execute(query)]

    def head(self, session_id: str) -> Head | None:
        """See `JournalStore.head`."""
        with self.transaction() as connection:
            rows = self._rows(connection, [session_id], lock=False)
        return _head(rows[0]) if rows else None

    def sessions(self, *, open_only: bool = True, limit: int = 1000) -> list[SessionRow]:
        """See `JournalStore.sessions`."""
        columns = schema.sessions.c
        query = select(*_HEAD_COLUMNS).order_by(columns.started_at.desc(), columns.session_id.desc()).limit(limit)
        if open_only:
            query = query.where(columns.ended.is_(False))
        with self.transaction() as connection:
            return [_row(row) for row in connection.execute(query)]

    def prune(self, before: float, *, limit: int = PRUNED_AT_ONCE) -> int:
        """See `JournalStore.prune`."""
        columns = schema.sessions.c
        # By their beginning, since that is what the index knows; whatever ended before a time began before it.
        query = (
            select(columns.session_id)
            .where(columns.ended.is_(True), columns.started_at < before, columns.written_at < before)
            .order_by(columns.started_at)
            .limit(limit)
        )
        with self.transaction() as connection:
            # Two that prune at once take different calls.
            old = list(connection.execute(query.with_for_update(skip_locked=True)).scalars())
            for chunk in _chunks(old):
                connection.execute(delete(schema.entries).where(schema.entries.c.session_id.in_(chunk)))
                connection.execute(delete(schema.sessions).where(columns.session_id.in_(chunk)))
        return len(old)

    def interrupt(self) -> None:
        """See `JournalStore.interrupt`."""
        if self._interrupter is not None:
            self._interrupter.interrupt()

    def close(self) -> None:
        """See `JournalStore.close`."""
        self._engine.dispose()

    def _rows(self, connection: Connection, session_ids: Sequence[str], *, lock: bool = True) -> list[SessionRow]:
        columns = schema.sessions.c
        rows: list[SessionRow] = []
        for chunk in _chunks(session_ids):
            query = select(*_HEAD_COLUMNS).where(columns.session_id.in_(chunk)).order_by(columns.session_id)
            rows += [_row(row) for row in connection.execute(query.with_for_update() if lock else query)]
        return rows

    def _move_heads(self, connection: Connection, known: dict[str, SessionRow], written: Iterable[Entry]) -> None:
        first: dict[str, Entry] = {}
        last: dict[str, Entry] = {}
        for entry in written:
            first.setdefault(entry.session_id, entry)
            last[entry.session_id] = entry
        moved: dict[str, SessionRow] = {}
        for session_id, entry in last.items():
            row = known.get(session_id) or row_after(None, first[session_id])
            moved[session_id] = row_after(row, entry)
        new = [msgspec.structs.asdict(row) for row in moved.values() if row.session_id not in known]
        if new:
            connection.execute(insert(schema.sessions), new)
        changed = [{"key": row.session_id, **msgspec.structs.asdict(row)} for row in moved.values() if row.session_id in known]
        if changed:
            values: dict[str, Any] = {
                name: bindparam(name) for name in ("epoch", "writer", "last_seq", "written_at", "ended", "end_code")
            }
            statement = update(schema.sessions).where(schema.sessions.c.session_id == bindparam("key")).values(values)
            connection.execute(statement, [{name: row[name] for name in ("key", *values)} for row in changed])


def _row(row: Any) -> SessionRow:
    return SessionRow(**row._mapping)


def _head(row: SessionRow) -> Head:
    return Head(row.session_id, row.epoch, row.writer, row.last_seq, row.ended)


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))
