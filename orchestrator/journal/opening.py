"""The journal of a node, as its settings want it."""

from __future__ import annotations

import os
import time
from glob import escape
from pathlib import Path

from orchestrator.errors import SettingsError
from orchestrator.journal.spool import SpoolFile
from orchestrator.journal.stores.sql import SqlStore, open_store
from orchestrator.settings import Settings

__all__ = ["journal_url", "open_journal", "state_directory"]

# Seconds after which nobody comes back to a spool that nobody has open.
ABANDONED_AFTER = 120.0


def state_directory(settings: Settings) -> Path:
    """Return the directory for what outlives a process of this node."""
    if settings.state_directory:
        return Path(settings.state_directory)
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "realtime-orchestrator"


def journal_url(settings: Settings) -> str:
    """Return the address of the store. It may hold a password."""
    return settings.journal_url.reveal() or f"sqlite:///{state_directory(settings) / 'journal.db'}"


def open_journal(settings: Settings, *, node: str = "") -> tuple[SqlStore, SpoolFile]:
    """Open the store and the spool of a node, which is named `node`. The store need not be there yet; its schema is brought up
    to date when it is.

    Raises SettingsError where the directory cannot be used or the address is none.
    """
    directory = state_directory(settings)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = directory / _spool_name(settings, node)
        spool = SpoolFile(path, settings.journal_spool_bytes, orphans=_orphans(settings, path))
    except OSError as error:
        raise SettingsError(f"cannot keep a journal in {directory}: {error.strerror}; set state_directory") from None
    return open_store(journal_url(settings), migrates=True), spool


def _spool_name(settings: Settings, node: str) -> str:
    """Name the spool: two services on one machine have one each, and so have two nodes of one service.

    A fixed port is a node's own on its machine, and stays when the node gets another name, as it does with every start.
    """
    if settings.port or not node:
        return f"{settings.namespace}-{settings.port}.spool"
    return f"{settings.namespace}-node-{node}.spool"


def _orphans(settings: Settings, own: Path) -> list[Path]:
    """Return spools that have no node to come back to: nodes without a fixed port have a new name with every start.

    A gateway that is started again is back long before its spool counts as one.
    """
    if settings.port:
        return []
    nameless = own.with_name(f"{settings.namespace}-0.spool")
    abandoned = time.time() - ABANDONED_AFTER
    named = [path for path in own.parent.glob(f"{escape(settings.namespace)}-node-*.spool") if _written_at(path) < abandoned]
    return sorted({nameless, *named} - {own})


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
