"""A node's journal is where its settings say, and its schema makes itself."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from orchestrator.errors import SettingsError
from orchestrator.journal.heads import Verdict
from orchestrator.journal.opening import journal_url, open_journal, state_directory
from orchestrator.journal.spool import SpoolFile
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


def test_nodes_that_share_a_directory_have_a_spool_each_and_find_it_again(tmp_path: Path) -> None:
    settings = Settings(state_directory=str(tmp_path), port=0)
    opened = [open_journal(settings, node=node) for node in ("aa", "bb")]
    for number, (_, spool) in enumerate(opened):
        spool.append(JOURNAL[: number + 1])
    for store, spool in opened:
        spool.close()
        store.close()
    # Soon after, they are the ones to come back.
    for number, node in enumerate(("aa", "bb")):
        store, spool = open_journal(settings, node=node)
        with spool:
            assert spool.entries == number + 1
        store.close()


def test_what_a_node_has_left_is_found_by_the_next_one(tmp_path: Path) -> None:
    settings = Settings(state_directory=str(tmp_path), port=0, namespace="calls[1]")
    left = {"calls[1]-0.spool": JOURNAL[:2], "calls[1]-node-gone.spool": JOURNAL[2:5], "calls1-node-other.spool": JOURNAL[5:]}
    for name, kept in left.items():
        with SpoolFile(tmp_path / name, 1 << 20) as spool:
            spool.append(kept)
        os.utime(tmp_path / name, (1.0, 1.0))
    store, spool = open_journal(settings, node="new")
    with spool:
        assert spool.read(1000) == JOURNAL[:5]
    store.close()
    names = {path.name for path in tmp_path.glob("*.spool")}
    assert names == {"calls1-node-other.spool", "calls[1]-node-new.spool"}


def test_a_fixed_port_names_the_spool_whatever_the_node_is_called(tmp_path: Path) -> None:
    settings = Settings(state_directory=str(tmp_path), port=8080)
    for node in ("aa", "bb"):
        store, spool = open_journal(settings, node=node)
        spool.append(JOURNAL[:1])
        spool.close()
        store.close()
    with SpoolFile(tmp_path / f"{settings.namespace}-8080.spool", 1 << 20) as spool:
        assert spool.entries == 2


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="set state_directory"):
        open_journal(Settings(state_directory=str(tmp_path / "file" / "x")))


def test_the_address_is_a_secret() -> None:
    settings = from_environment({"ORCHESTRATOR_JOURNAL_URL": "postgresql://a:geheim@b/c"})
    assert journal_url(settings) == "postgresql://a:geheim@b/c"
    assert "geheim" not in repr(settings)
