"""The bodies of `orchestrator sessions` and `orchestrator replay`: what the journal knows of calls.

A service may be at work on the same store. All but `prune` read and never write. What opens a database is imported when a
command runs, so that reading the command line costs nothing.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console, RenderableType

from orchestrator.errors import JournalUnavailableError, SettingsError, UserError
from orchestrator.journal.writers import WriterName
from orchestrator.settings import from_environment

if TYPE_CHECKING:
    from orchestrator.journal.stores import JournalStore, SessionRow

__all__ = ["add_replay_arguments", "add_sessions_arguments", "run_replay", "run_sessions"]

_MOST = 100_000
# Without a terminal there is no edge to wrap at; a line per call is what other programs want.
_WIDTH_OF_A_FILE = 200
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_ELSEWHERE = "name another with --journal or ORCHESTRATOR_JOURNAL_URL"


def add_sessions_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list`, `show` and `prune`."""
    actions = parser.add_subparsers(dest="action", metavar="list | show | prune", required=True)
    listing = actions.add_parser("list", help="calls that go on, the latest first")
    listing.add_argument("--all", action="store_true", help="also calls that are over")
    listing.add_argument(
        "--limit", type=_limit, default=100, metavar="N", help="tell of so many calls at most (default: %(default)s)"
    )
    _add_common(listing, "print one JSON array")
    showing = actions.add_parser("show", help="one call: who owns it, what was said, which tool calls are open")
    showing.add_argument("session_id", metavar="ID", help="the call, as `sessions list` names it")
    _add_common(showing, "print the rebuilt state as one JSON object")
    pruning = actions.add_parser("prune", help="delete the journals of calls that are over")
    pruning.add_argument(
        "--older-than",
        type=_age,
        required=True,
        metavar="AGE",
        help="of calls that ended so long ago or longer: 30d, 12h, 90m or 45s",
    )
    _add_common(pruning, "print how many as one JSON object")


def add_replay_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `replay`."""
    parser.add_argument("session_id", metavar="ID", help="the call, as `orchestrator sessions list --all` names it")
    _add_common(parser, "print the checks as one JSON object")


def run_sessions(options: argparse.Namespace) -> int:
    """List calls, show one, or delete old ones; returns 0.

    Raises UserError for a call that is not known, SettingsError where there is no journal, JournalUnavailableError where its
    store does not answer, and JournalFormatError where the call cannot be read.
    """
    with _open(options.journal, reads_only=options.action != "prune") as (store, place):
        if options.action == "list":
            _list(store, options)
        elif options.action == "prune":
            _prune(store, options)
        else:
            _show(store, place, options)
    return 0


def run_replay(options: argparse.Namespace) -> int:
    """Rebuild a call and check its journal; returns 0 if every check holds, else 1. Raises as `run_sessions` does."""
    from orchestrator.journal.audit import audit  # see the module
    from orchestrator.journal.report import render_audit

    with _open(options.journal) as (store, place):
        # In this order: entries that are written meanwhile are then seen as such.
        head = store.head(options.session_id)
        if head is None:
            raise _unknown(options.session_id, place)
        found = audit(options.session_id, head, store.read(options.session_id))
    if options.json:
        _print_json({"ok": found.ok, **msgspec.to_builtins(found)})
    else:
        _print(render_audit(found))
    return 0 if found.ok else 1


def _list(store: JournalStore, options: argparse.Namespace) -> None:
    from orchestrator.journal.report import render_sessions  # see the module

    # One more, to know whether there are more.
    rows = store.sessions(open_only=not options.all, limit=options.limit + 1)
    shown = rows[: options.limit]
    if options.json:
        _print_json([_record(row) for row in shown])
    elif shown:
        _print(render_sessions(shown))
    else:
        _tell("no calls in the journal" if options.all else "no calls go on; --all lists those that are over")
    if len(rows) > len(shown):
        _tell(f"there are more than {options.limit} calls: --limit N lists more of them")


def _show(store: JournalStore, place: str, options: argparse.Namespace) -> None:
    from orchestrator.journal.audit import rebuild  # see the module
    from orchestrator.journal.report import render_call

    entries = store.read(options.session_id)
    if not entries:
        raise _unknown(options.session_id, place)
    state, history = rebuild(options.session_id, entries)
    if options.json:
        _print_json(state)
    else:
        _print(render_call(state, history))


def _prune(store: JournalStore, options: argparse.Namespace) -> None:
    # One moment for all batches, or a journal that grows while it is pruned would keep this at work for ever.
    before = time.time() - options.older_than
    pruned = 0
    # A transaction each, so that a service at work waits for no more than one of them.
    while (done := store.prune(before)) > 0:
        pruned += done
    if options.json:
        _print_json({"pruned": pruned})
    else:
        _tell(f"deleted the journals of {pruned} call{'' if pruned == 1 else 's'}")


def _record(row: SessionRow) -> dict[str, Any]:
    writer = WriterName.parse(row.writer)
    return {
        "session_id": row.session_id,
        "state": "ended" if row.ended else "open",
        "end_code": row.end_code,
        "channel": row.channel,
        "node": writer.node,
        "actor": writer.actor,
        "actor_pid": writer.pid,
        "epoch": row.epoch,
        "started_at": row.started_at,
        "written_at": row.written_at,
        "entries": row.last_seq,
    }


@contextmanager
def _open(url: str | None, *, reads_only: bool = True) -> Iterator[tuple[JournalStore, str]]:
    """Open the journal at a URL, or else the service's own; yields it and where it is, in words."""
    from orchestrator.journal.opening import journal_url  # see the module
    from orchestrator.journal.stores.sql import open_store, store_place

    url = journal_url(from_environment()) if url is None else url
    # Looked for by a reader in any case: whatever else may be there is left as it is.
    store = open_store(url, reads_only=True)
    place = store_place(url)
    try:
        if not store.exists():
            raise SettingsError(f"there is no journal at {place}: no call was written there yet; or {_ELSEWHERE}")
        if not reads_only:
            store.close()
            store = open_store(url)
        yield store, place
    except JournalUnavailableError as error:
        raise JournalUnavailableError(f"{error.message}; it is looked for at {place}: start it, or {_ELSEWHERE}") from None
    finally:
        store.close()


def _unknown(session_id: str, place: str) -> UserError:
    # The id may be anything that was typed, and is shown as such.
    return UserError(f"the journal at {place} knows no call {session_id!a}: `orchestrator sessions list --all` names them")


def _add_common(parser: argparse.ArgumentParser, json_help: str) -> None:
    parser.add_argument("--json", action="store_true", help=f"{json_help} on standard output instead of the report")
    parser.add_argument(
        "--journal",
        metavar="URL",
        help="the journal, sqlite:///path or postgresql://user@host/database (default: where a service with this environment "
        "keeps it; one with a password belongs into ORCHESTRATOR_JOURNAL_URL)",
    )


def _limit(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= _MOST:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {_MOST}")
    return number


def _age(text: str) -> float:
    """Return seconds. A number alone is refused: of what, nobody would know afterwards."""
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError("must be a number and one of s, m, h, d: 30d")
    return int(found[1]) * _SECONDS[found[2]]


def _print(renderable: RenderableType) -> None:
    Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE).print(renderable)


def _print_json(value: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.flush()


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
