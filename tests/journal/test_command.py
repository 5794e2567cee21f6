"""`orchestrator sessions` and `orchestrator replay`, as people and programs use them."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator import cli
from orchestrator.errors import EndReason
from orchestrator.journal.entries import CallEnded, CallStarted, Entry
from orchestrator.journal.state import CallState, replay
from orchestrator.journal.stores.sql import migrate, open_store
from tests.journal.postgres import Postgres
from tests.journal.writing import FINISHED, UNIX_TIME, entries

# Of three calls, the first is over, the second goes on, and of the third nobody told a digest at its end.
OVER = entries(*FINISHED, session_id="s1", writer="node-1/session-1/4711")
GOES_ON = entries(*FINISHED[:7], session_id="s2", writer="node-1/session-2/4712")
BEGAN, LOST = entries(CallStarted("openai", "Reception"), CallEnded(EndReason("node_lost")), session_id="s3")
NO_DIGEST = [msgspec.structs.replace(BEGAN, time=UNIX_TIME + 90), msgspec.structs.replace(LOST, time=UNIX_TIME + 91)]

Ran = Callable[..., tuple[int, str, str]]


def fill(url: str, *journals: list[Entry]) -> str:
    migrate(url)
    store = open_store(url)
    for journal in journals:
        store.append(journal)
    store.close()
    return url


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ran:
    """Runs a command; returns its status, output and errors."""
    monkeypatch.delenv("ORCHESTRATOR_JOURNAL_URL", raising=False)

    def command(*words: str) -> tuple[int, str, str]:
        status = cli.main(words)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command


@pytest.fixture
def url(tmp_path: Path) -> str:
    return fill(f"sqlite:///{tmp_path / 'journal.db'}", OVER, GOES_ON, NO_DIGEST)


def listed(run: Ran, *words: str) -> list[dict[str, Any]]:
    status, out, _ = run("sessions", "list", "--json", *words)
    assert status == 0
    found: list[dict[str, Any]] = json.loads(out)
    return found


def test_lists_what_goes_on(run: Ran, url: str) -> None:
    assert listed(run, "--journal", url) == [
        {
            "session_id": "s2",
            "state": "open",
            "end_code": None,
            "channel": "twilio",
            "node": "node-1",
            "actor": "session-2",
            "actor_pid": 4712,
            "epoch": 1,
            "started_at": UNIX_TIME + 1,
            "written_at": UNIX_TIME + 7,
            "entries": 7,
        }
    ]


def test_lists_all_the_latest_first(run: Ran, url: str) -> None:
    rows = listed(run, "--all", "--journal", url)
    assert [(row["session_id"], row["state"], row["end_code"]) for row in rows] == [
        ("s3", "ended", "node_lost"),
        ("s2", "open", None),
        ("s1", "ended", "caller_hung_up"),
    ]
    assert (rows[0]["node"], rows[0]["actor"], rows[0]["actor_pid"]) == ("", "a", None)


def test_a_list_that_is_cut_says_so(run: Ran, url: str) -> None:
    status, out, err = run("sessions", "list", "--all", "--limit", "2", "--journal", url)
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["session", "s3", "s2"]
    assert "more than 2 calls" in err
    assert len(listed(run, "--all", "--limit", "2", "--journal", url)) == 2
    _, _, err = run("sessions", "list", "--all", "--limit", "3", "--journal", url)
    assert err == ""


def test_an_empty_list_says_so_and_is_an_empty_array(run: Ran, tmp_path: Path) -> None:
    url = fill(f"sqlite:///{tmp_path / 'journal.db'}", OVER)
    assert run("sessions", "list", "--journal", url) == (0, "", "no calls go on; --all lists those that are over\n")
    assert listed(run, "--journal", url) == []


def test_deletes_what_is_over_and_old_and_nothing_else(run: Ran, tmp_path: Path) -> None:
    now = time.time()
    journals = [
        [msgspec.structs.replace(one, session_id=f"s{days}", time=now - days * 86400) for one in OVER] for days in range(120)
    ]
    goes_on = [msgspec.structs.replace(one, time=now - 200 * 86400) for one in entries(*FINISHED[:3], session_id="open")]
    url = fill(f"sqlite:///{tmp_path / 'journal.db'}", goes_on, *journals)
    # More than one transaction deletes.
    assert run("sessions", "prune", "--older-than", "30d", "--journal", url)[::2] == (0, "deleted the journals of 90 calls\n")
    left = {row["session_id"] for row in listed(run, "--all", "--limit", "1000", "--journal", url)}
    assert left == {"open", *(f"s{days}" for days in range(30))}
    assert run("sessions", "show", "s31", "--journal", url)[0] == 2
    assert json.loads(run("sessions", "prune", "--older-than", "696h", "--json", "--journal", url)[1]) == {"pruned": 1}
    assert run("sessions", "prune", "--older-than", "999999d", "--journal", url)[2] == "deleted the journals of 0 calls\n"


def test_shows_a_call(run: Ran, url: str) -> None:
    status, out, _ = run("sessions", "show", "s1", "--journal", url)
    assert status == 0
    for text in ("caller_hung_up", "where is my parcel?", "on its way", "[cut: 0.7 s heard of 2.0 s]"):
        assert text in out


def test_shows_a_call_to_programs(run: Ran, url: str) -> None:
    status, out, _ = run("sessions", "show", "s2", "--json", "--journal", url)
    assert status == 0
    assert msgspec.json.decode(out, type=CallState) == replay("s2", GOES_ON)


@pytest.mark.parametrize(
    ("session_id", "status", "history"), [("s1", 0, "holds"), ("s2", 0, "not_due"), ("s3", 1, "not_recorded")]
)
def test_replays_a_call(run: Ran, url: str, session_id: str, status: int, history: str) -> None:
    ended, out, _ = run("replay", session_id, "--json", "--journal", url)
    found = json.loads(out)
    assert ended == status
    assert found["ok"] is (status == 0)
    assert {check["name"]: check["finding"] for check in found["checks"]} == {
        "contiguous": "holds",
        "owners": "holds",
        "head": "holds",
        "readable": "holds",
        "history": history,
    }
    ended, out, _ = run("replay", session_id, "--journal", url)
    assert ended == status
    assert ("All checks hold." in out) is (status == 0)
    assert "parcel" not in out


def test_damage_in_the_store_is_status_1(run: Ran, url: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "journal.db") as database:
        database.execute("UPDATE entries SET body = replace(CAST(body AS TEXT), 'my parcel', 'a parcel') WHERE seq = 2")
    database.close()
    status, out, _ = run("replay", "s1", "--json", "--journal", url)
    assert status == 1
    assert [check["name"] for check in json.loads(out)["checks"] if check["finding"] == "broken"] == ["history"]


def test_in_postgresql(run: Ran, postgres: Postgres) -> None:
    url = fill(postgres.new_database(), OVER, GOES_ON)
    assert [row["session_id"] for row in listed(run, "--all", "--journal", url)] == ["s2", "s1"]
    assert run("sessions", "show", "s1", "--journal", url)[0] == 0
    assert run("replay", "s1", "--journal", url)[0] == 0
    empty = postgres.new_database()
    status, _, err = run("sessions", "list", "--journal", empty)
    assert status == 2
    assert "there is no journal at postgresql:///test_" in err


def test_the_store_is_the_services_own(run: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_STATE_DIRECTORY", str(tmp_path))
    fill(f"sqlite:///{tmp_path / 'journal.db'}", GOES_ON)
    assert [row["session_id"] for row in listed(run)] == ["s2"]
    monkeypatch.setenv("ORCHESTRATOR_JOURNAL_URL", fill(f"sqlite:///{tmp_path / 'other.db'}", OVER))
    assert [row["session_id"] for row in listed(run, "--all")] == ["s1"]


COMMANDS = (("sessions", "list"), ("sessions", "prune", "--older-than", "1d"), ("sessions", "show", "s1"), ("replay", "s1"))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_where_no_journal_is_none_is_made(run: Ran, tmp_path: Path, words: tuple[str, ...]) -> None:
    status, out, err = run(*words, "--journal", f"sqlite:///{tmp_path / 'none.db'}")
    assert (status, out) == (2, "")
    assert "there is no journal at" in err
    assert "--journal or ORCHESTRATOR_JOURNAL_URL" in err
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_something_else_is_told_apart_and_left_alone(run: Ran, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE sessions (cookie)")
    database.commit()
    database.close()
    before = path.read_bytes()
    status, _, err = run("sessions", "list", "--journal", f"sqlite:///{path}")
    assert status == 2
    assert "there is no journal at" in err
    assert path.read_bytes() == before


def test_a_store_that_is_away_is_named_without_its_password(run: Ran) -> None:
    status, out, err = run("replay", "s1", "--journal", "postgresql://op:geheim@127.0.0.1:1/calls?application_name=geheim")
    assert (status, out) == (2, "")
    assert "postgresql://127.0.0.1:1/calls" in err
    assert "[journal_unavailable]" in err
    assert "geheim" not in err
    assert "op" not in err.split("postgresql://")[1].split(":1/calls")[0]


@pytest.mark.parametrize("url", ["", "calls", "mysql://op:geheim@h/calls", "postgresql://op:x@h:geheim/calls"])
def test_an_address_that_is_none_is_refused(run: Ran, url: str) -> None:
    status, _, err = run("sessions", "list", "--journal", url)
    assert status == 2
    assert "[invalid_settings]" in err
    assert "gehe" not in err


@pytest.mark.parametrize("words", COMMANDS[2:], ids=" ".join)
def test_a_call_that_nobody_knows(run: Ran, tmp_path: Path, words: tuple[str, ...]) -> None:
    url = fill(f"sqlite:///{tmp_path / 'journal.db'}", GOES_ON)
    status, out, err = run(*words, "--json", "--journal", url)
    assert (status, out) == (2, "")
    assert "knows no call 's1': `orchestrator sessions list --all` names them" in err


def test_what_was_typed_is_not_obeyed(run: Ran, url: str) -> None:
    _, _, err = run("replay", "\x1b[2J", "--journal", url)
    assert "\x1b" not in err


def test_a_damaged_call_cannot_be_shown_and_says_which_entry(run: Ran, url: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "journal.db") as database:
        database.execute("UPDATE entries SET body = ? WHERE seq = 2", (b'{"kind":"item"',))
    database.close()
    status, _, err = run("sessions", "show", "s1", "--journal", url)
    assert status == 2
    assert "entry 2 (item) of session s1 cannot be read" in err


def test_a_reader_does_not_wait_for_a_writer(run: Ran, url: str, tmp_path: Path) -> None:
    writer = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM entries")
    assert run("replay", "s1", "--journal", url)[0] == 0
    writer.execute("ROLLBACK")
    writer.close()
