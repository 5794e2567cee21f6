"""Every store keeps the same promises; those in SQL also while several nodes write at once."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import EndReason, JournalContentError, JournalUnavailableError, SettingsError
from orchestrator.journal.entries import AgentChanged, CallEnded, CallStarted, Snapshot, TakenOver
from orchestrator.journal.heads import Head, Verdict
from orchestrator.journal.state import CallState
from orchestrator.journal.stores import JournalStore, MemoryStore, SessionRow
from orchestrator.journal.stores.schema import metadata
from orchestrator.journal.stores.sql import SqlStore, migrate, open_store, store_place
from tests.journal.postgres import Postgres
from tests.journal.writing import CALL, UNIX_TIME, entries, entry
from tests.waiting import until_sync

JOURNAL = entries(*CALL)
WRITE, KNOWN, STALE, GAP = Verdict.WRITE, Verdict.KNOWN, Verdict.STALE, Verdict.GAP


def test_a_call_is_read_back_as_it_was_written(store: JournalStore) -> None:
    assert store.append(JOURNAL) == [WRITE] * len(JOURNAL)
    assert store.read("s1") == JOURNAL
    assert store.read("s1", after_seq=4) == JOURNAL[4:]
    assert store.read("nobody") == []
    assert store.head("s1") == Head("s1", 2, "a2", len(JOURNAL), ended=True)
    assert store.head("nobody") is None


def test_what_is_written_twice_is_there_once(store: JournalStore) -> None:
    store.append(JOURNAL[:4])
    assert store.append(JOURNAL[2:6]) == [KNOWN, KNOWN, WRITE, WRITE]
    assert store.read("s1") == JOURNAL[:6]


def test_a_stale_writer_is_refused_by_the_store_itself(store: JournalStore) -> None:
    store.append(JOURNAL[:3])
    claim = entry(TakenOver("node_lost"), 4, epoch=2, writer="b")
    late = entry(AgentChanged("late"), 4)
    assert store.append([claim]) == [WRITE]
    assert store.append([late, entry(AgentChanged("later"), 5)]) == [STALE, STALE]
    assert store.append([entry(TakenOver("me_too"), 4, epoch=2, writer="c")]) == [STALE]
    assert store.read("s1") == [*JOURNAL[:3], claim]


def test_a_batch_of_many_calls_judges_each_by_itself(store: JournalStore) -> None:
    other = entries(CallStarted("openai", "B"), AgentChanged("C"), session_id="s2", writer="x")
    hole = entry(AgentChanged("?"), 9, "s3")
    assert store.append([JOURNAL[0], hole, other[0], JOURNAL[1], other[1]]) == [WRITE, GAP, WRITE, WRITE, WRITE]
    assert store.read("s2") == other
    assert store.read("s3") == []


def test_calls_are_listed_latest_first_and_old_ones_pruned(store: JournalStore) -> None:
    first = msgspec.structs.replace(entry(CallStarted("openai", "A"), 1, "old"), time=UNIX_TIME - 100)
    store.append([first, *JOURNAL])
    assert [row.session_id for row in store.sessions(open_only=False)] == ["s1", "old"]
    assert [row.session_id for row in store.sessions(open_only=False, limit=1)] == ["s1"]
    assert store.sessions() == [
        SessionRow(
            session_id="old",
            channel="openai",
            epoch=1,
            writer="a",
            last_seq=1,
            started_at=UNIX_TIME - 100,
            written_at=UNIX_TIME - 100,
            ended=False,
        )
    ]
    ended = store.sessions(open_only=False)[0]
    assert (ended.channel, ended.epoch, ended.end_code, ended.last_seq) == ("twilio", 2, "caller_hung_up", len(JOURNAL))
    assert store.prune(before=UNIX_TIME) == 0
    assert store.prune(before=UNIX_TIME + 1000) == 1
    assert store.read("s1") == []
    assert store.head("s1") is None
    assert [row.session_id for row in store.sessions(open_only=False)] == ["old"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_sql_decides_as_memory_does(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'journal.db'}"
    migrate(url)
    sql, memory = open_store(url), MemoryStore()
    bodies = [CallStarted("openai", "A"), AgentChanged("B"), TakenOver("x"), CallEnded(EndReason("x"))]
    made = st.builds(
        entry,
        st.sampled_from(bodies),
        st.integers(1, 5),
        st.sampled_from(["s1", "s2"]),
        st.integers(1, 3),
        st.sampled_from(["a", "b"]),
    )
    for batch in data.draw(st.lists(st.lists(made, min_size=1, max_size=6), max_size=8)):
        assert sql.append(batch) == memory.append(batch)
    for session_id in ("s1", "s2"):
        assert sql.read(session_id) == memory.read(session_id)
        assert sql.head(session_id) == memory.head(session_id)
    assert sql.sessions(open_only=False) == memory.sessions(open_only=False)
    sql.close()


@pytest.fixture(params=["sqlite", "postgres"])
def sql_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'journal.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


def test_of_many_that_claim_a_call_at_once_one_gets_it(sql_url: str) -> None:
    migrate(sql_url)
    store = open_store(sql_url)
    store.append(JOURNAL[:3])
    answers: dict[str, list[Verdict]] = {}
    ready = threading.Barrier(6)

    def claim(writer: str) -> None:
        own = open_store(sql_url)
        ready.wait()
        answers[writer] = own.append([entry(TakenOver("node_lost"), 4, epoch=2, writer=writer)])
        own.close()

    threads = [threading.Thread(target=claim, args=(f"w{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [writer for writer, verdicts in answers.items() if verdicts == [WRITE]]
    assert len(answers) == 6
    assert len(winners) == 1
    head = store.head("s1")
    assert head is not None
    assert (head.epoch, head.writer) == (2, winners[0])
    store.close()


def test_two_nodes_may_migrate_at_once_and_again(sql_url: str) -> None:
    faults: list[JournalUnavailableError] = []

    def run() -> None:
        try:
            migrate(sql_url)
        except JournalUnavailableError as error:
            faults.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    migrate(sql_url)
    store = open_store(sql_url)
    assert store.append(JOURNAL) == [WRITE] * len(JOURNAL)
    store.close()


def test_the_migrations_lead_to_the_schema(sql_url: str) -> None:
    migrate(sql_url)
    store = open_store(sql_url)
    with store.transaction() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    store.close()


def test_a_server_that_goes_away_and_comes_back(postgres: Postgres) -> None:
    url = postgres.new_database()
    migrate(url)
    store = open_store(url, connect_timeout=1.0)
    store.append(JOURNAL[:3])
    postgres.stop()
    try:
        with pytest.raises(JournalUnavailableError, match="does not answer"):
            store.append(JOURNAL[3:5])
    finally:
        postgres.start()
    assert store.append(JOURNAL[:5]) == [KNOWN, KNOWN, KNOWN, WRITE, WRITE]
    store.close()


def test_errors_never_show_what_was_to_be_written(sql_url: str) -> None:
    store = open_store(sql_url)
    with pytest.raises(JournalUnavailableError) as caught:
        store.append(JOURNAL)
    assert "parcel" not in str(caught.value)
    assert caught.value.__suppress_context__
    store.close()


@pytest.mark.parametrize("url", ["mysql://somebody:geheim@host/x", "geheim", "postgresql://a:b@host:geheim/x"])
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        open_store(url)
    assert "geheim" not in str(caught.value)


def test_sqlite_survives_a_power_cut(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    migrate(url)
    store: SqlStore = open_store(url)
    with store.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    store.close()
    assert sqlite3.connect(tmp_path / "journal.db").execute("SELECT count(*) FROM entries").fetchone() == (0,)


def test_a_reader_sees_what_is_there_and_can_change_nothing(sql_url: str) -> None:
    migrate(sql_url)
    writer, reader = open_store(sql_url), open_store(sql_url, reads_only=True)
    assert reader.exists()
    writer.append(JOURNAL[:5])
    assert reader.read("s1") == JOURNAL[:5]
    assert reader.head("s1") == writer.head("s1")
    with pytest.raises(JournalUnavailableError):
        reader.append(JOURNAL[5:])
    assert writer.read("s1") == JOURNAL[:5]
    reader.close()
    writer.close()


def test_a_reader_finds_out_whether_there_is_a_journal_and_makes_none(sql_url: str, tmp_path: Path) -> None:
    reader = open_store(sql_url, reads_only=True)
    assert not reader.exists()
    assert list(tmp_path.iterdir()) == []
    migrate(sql_url)
    assert reader.exists()
    reader.close()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("sqlite:///relative/journal.db", "sqlite:///relative/journal.db"),
        ("sqlite:////var/journal.db", "sqlite:////var/journal.db"),
        ("postgresql://somebody:geheim@host:5433/calls?sslmode=require&password=geheim", "postgresql://host:5433/calls"),
        ("postgresql://somebody@/calls?host=/run/postgresql", "postgresql:///calls"),
    ],
)
def test_a_place_is_told_without_account_or_password(url: str, place: str) -> None:
    assert store_place(url) == place


def test_a_list_shows_a_call_whose_beginning_was_lost(store: JournalStore) -> None:
    told = CallState(session_id="s1", channel="twilio", started_at=UNIX_TIME - 50)
    store.append([entry(Snapshot(msgspec.Raw(told.to_json())), 9)])
    (row,) = store.sessions()
    assert (row.channel, row.started_at, row.last_seq) == ("twilio", UNIX_TIME - 50, 9)


@pytest.mark.parametrize("bad", ["seq", "name"])
def test_what_a_store_will_never_take_is_told_from_one_that_is_away(sql_url: str, bad: str) -> None:
    migrate(sql_url)
    store = open_store(sql_url)
    poison = entry(CallStarted("openai", "A"), 1, "s2")
    # A name that no database can encode; a number that none has room for, behind a snapshot's hole.
    poison = (
        msgspec.structs.replace(poison, session_id="half \udc80")
        if bad == "name"
        else entry(Snapshot(msgspec.Raw(b"{}")), 2**70, "s2")
    )
    with pytest.raises(JournalContentError) as caught:
        store.append([*JOURNAL, poison])
    assert "parcel" not in str(caught.value)
    assert store.read("s1") == []
    assert store.append(JOURNAL) == [WRITE] * len(JOURNAL)
    store.close()


def test_two_nodes_that_begin_one_call_at_once_are_told_who_did(postgres: Postgres) -> None:
    url = postgres.new_database()
    migrate(url)
    first, second = open_store(url), open_store(url)
    begun = entry(CallStarted("openai", "A"), 1, writer="b")
    read = second._rows

    def read_and_be_overtaken(*arguments: Any, **options: Any) -> list[SessionRow]:
        found = read(*arguments, **options)
        if not first.head("s1"):
            assert first.append([JOURNAL[0]]) == [WRITE]
        return found

    second._rows = read_and_be_overtaken  # type: ignore[method-assign]
    assert second.append([begun]) == [STALE]
    first.close()
    second.close()


def test_old_calls_are_deleted_in_batches(store: JournalStore) -> None:
    for number in range(7):
        store.append(entries(*CALL, session_id=f"s{number}"))
    assert [store.prune(UNIX_TIME + 1000, limit=3) for _ in range(4)] == [3, 3, 1, 0]


def test_a_server_that_does_not_even_say_no_is_interrupted(postgres: Postgres) -> None:
    url = postgres.new_database()
    migrate(url)
    store = open_store(url)
    store.append(JOURNAL[:3])
    with postgres.frozen(), ThreadPoolExecutor(1) as thread:
        answer = thread.submit(store.append, JOURNAL[3:5])

        def interrupted() -> bool:
            store.interrupt()
            return answer.done()

        until_sync(interrupted)
        with pytest.raises(JournalUnavailableError):
            answer.result()
    assert store.append(JOURNAL[:5])[3:] == [WRITE, WRITE]
    store.close()


def test_a_migrated_database_may_be_used_by_an_account_that_can_change_no_schema(postgres: Postgres) -> None:
    url = postgres.new_database()
    migrate(url)
    owner = open_store(url)
    with owner.transaction() as connection:
        connection.exec_driver_sql("CREATE ROLE clerk LOGIN")
        connection.exec_driver_sql("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO clerk")
    owner.close()
    clerk = open_store(url.replace("postgres@", "clerk@"), migrates=True)
    assert clerk.append(JOURNAL) == [WRITE] * len(JOURNAL)
    clerk.close()
