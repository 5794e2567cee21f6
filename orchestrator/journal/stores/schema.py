"""The two tables of a journal in SQL: what was written, and one row per call that says who may write next."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, MetaData, Table, Text

__all__ = ["entries", "metadata", "sessions"]

metadata = MetaData(
    naming_convention={"pk": "%(table_name)s_pkey", "ix": "%(table_name)s_%(column_0_name)s", "fk": "%(table_name)s_fkey"}
)

sessions = Table(
    "sessions",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("channel", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("writer", Text, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("written_at", Double, nullable=False),
    Column("ended", Boolean, nullable=False),
    Column("end_code", Text),
    # The list of calls that are going on, and the pruning of old ones, must not read those of a year.
    Index("sessions_by_state", "ended", "started_at"),
)

entries = Table(
    "entries",
    metadata,
    # No foreign key: both tables are only ever written in one transaction, and the check would be paid per entry.
    Column("session_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("writer", Text, nullable=False),
    Column("time", Double, nullable=False),
    Column("kind", Text, nullable=False),
    # JSON, kept to the byte.
    Column("body", LargeBinary, nullable=False),
    Column("version", Integer, nullable=False),
)
