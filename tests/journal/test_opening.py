"""A node's journal is where its settings say, and its schema makes itself."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from orchestrator.errors import SettingsError
from orchestrator.journal.heads import Verdict
from orchestrator.journal.opening import journal_url, open_journal, state_directory
from orchestrator.settings import Secret, Settings, from_environment
from tests.journal.postgres import Postgres
from tests.journal.writing import CALL, entries

JOURNAL = entries(*CALL)


def test_without_an_address_it_is_sqlite_in_the_state_directory(tmp_path: Path) -> None:
    store, spool = open_journal(Settings(state_directory=str(tmp_path / "state")))
    with spool:
        assert store.append(JOURNAL) == [Verdict.WRITE] * len(JOURNAL)
    store.close()
    assert (tmp_path / "state" / "journal.db").exists()
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_a_cluster_names_its_server(tmp_path: Path, postgres: Postgres) -> None:
    store, spool = open_journal(Settings(state_directory=str(tmp_path), journal_url=Secret(postgres.new_database())))
    with spool:
        assert store.append(JOURNAL) == [Verdict.WRITE] * len(JOURNAL)
        assert store.read("s1") == JOURNAL
    store.close()


def test_the_default_place_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_directory(Settings()) == tmp_path / "realtime-orchestrator"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert journal_url(Settings()) == f"sqlite:///{tmp_path}/.local/state/realtime-orchestrator/journal.db"


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="set state_directory"):
        open_journal(Settings(state_directory=str(tmp_path / "file" / "x")))


def test_the_address_is_a_secret() -> None:
    settings = from_environment({"ORCHESTRATOR_JOURNAL_URL": "postgresql://a:geheim@b/c"})
    assert journal_url(settings) == "postgresql://a:geheim@b/c"
    assert "geheim" not in repr(settings)
