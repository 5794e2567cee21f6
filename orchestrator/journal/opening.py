"""The journal of a node, as its settings want it."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.errors import SettingsError
from orchestrator.journal.spool import SpoolFile
from orchestrator.journal.stores.sql import SqlStore, open_store
from orchestrator.settings import Settings

__all__ = ["journal_url", "open_journal", "state_directory"]


def state_directory(settings: Settings) -> Path:
    """Return the directory for what outlives a process of this node."""
    if settings.state_directory:
        return Path(settings.state_directory)
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "realtime-orchestrator"


def journal_url(settings: Settings) -> str:
    """Return the address of the store. It may hold a password."""
    return settings.journal_url.reveal() or f"sqlite:///{state_directory(settings) / 'journal.db'}"


def open_journal(settings: Settings) -> tuple[SqlStore, SpoolFile]:
    """Open the node's store and spool. The store need not be there yet; its schema is brought up to date when it is.

    Raises SettingsError where the directory cannot be used or the address is none.
    """
    directory = state_directory(settings)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # By name and port, since two services on one machine have a spool each.
        spool = SpoolFile(directory / f"{settings.namespace}-{settings.port}.spool", settings.journal_spool_bytes)
    except OSError as error:
        raise SettingsError(f"cannot keep a journal in {directory}: {error.strerror}; set state_directory") from None
    return open_store(journal_url(settings), migrates=True), spool
