"""Where journals are kept: in memory for tests, in SQLite on one machine, in PostgreSQL for a cluster."""

from orchestrator.journal.stores.base import JournalStore, SessionRow
from orchestrator.journal.stores.memory import MemoryStore

__all__ = ["JournalStore", "MemoryStore", "SessionRow"]
