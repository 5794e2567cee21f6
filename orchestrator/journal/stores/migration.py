"""Bringing a server's schema up to date beside a store's work.

A change of a large table may take minutes, a statement of the store's work may not: so a migration has a connection, limits
and a thread of its own, and what is to be written meanwhile is refused, which sends it to the spool.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from orchestrator.errors import JournalUnavailableError

__all__ = ["MIGRATION_LOCK_TIMEOUT", "MIGRATION_TIMEOUT", "Migration"]

# Seconds that one statement of a migration may take, and that it may wait for a lock. The latter is short: behind a change that
# waits for a table, everybody else who wants the table waits too.
MIGRATION_TIMEOUT = 900.0
MIGRATION_LOCK_TIMEOUT = 5.0


class Migratable(Protocol):
    """A store whose schema can be brought up to date."""

    def migrate(self) -> None:
        """Bring it up to date."""

    def interrupt(self) -> None:
        """Make what hangs raise."""

    def close(self) -> None:
        """Let go of it."""


class Migration:
    """One schema on its way to the present version; `open_store` opens a store for it alone.

    One thread at a time asks `ensure`. A try that fails is followed by another with the next call. Owns a thread while one is
    under way. `limit` (seconds) is when it counts as hanging.
    """

    def __init__(
        self, open_store: Callable[[], Migratable], *, patience: float = 3.0, limit: float = MIGRATION_TIMEOUT
    ) -> None:
        self._open_store = open_store
        self._patience = patience
        self._limit = limit
        self._thread: threading.Thread | None = None
        self._store: Migratable | None = None
        self._began = 0.0
        self._error: Exception | None = None
        self._done = False

    def ensure(self) -> None:
        """Return once the schema is up to date, after `patience` seconds at most.

        Raises JournalUnavailableError while it is not, and what the migration raised.
        """
        if self._done:
            return
        if self._thread is None:
            self._began = time.monotonic()
            self._thread = threading.Thread(target=self._run, name="journal migration", daemon=True)
            self._thread.start()
        self._thread.join(self._patience)
        if self._thread.is_alive():
            if time.monotonic() - self._began > self._limit and self._store is not None:
                # It is not at work, it hangs.
                self._store.interrupt()
            raise JournalUnavailableError("the journal's schema is being brought up to date")
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            self._store = self._open_store()
            try:
                self._store.migrate()
            finally:
                self._store.close()
            self._done = True
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for whoever asked
            self._error = error
