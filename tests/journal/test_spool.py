"""The spool outlives a crash, wherever it comes, and never grows beyond its limit."""

from __future__ import annotations

import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import JournalUnavailableError
from orchestrator.journal.entries import AgentChanged
from orchestrator.journal.spool import SpoolFile
from tests.journal.writing import CALL, entries, entry

JOURNAL = entries(*CALL)
LIMIT = 1024 * 1024


def test_what_was_appended_is_read_in_order_and_dropped_when_confirmed(tmp_path: Path) -> None:
    with SpoolFile(tmp_path / "spool", LIMIT) as spool:
        spool.append(JOURNAL[:5])
        spool.append(JOURNAL[5:])
        assert spool.entries == len(JOURNAL)
        assert spool.read(4) == JOURNAL[:4]
        assert spool.read(1000) == JOURNAL
        spool.confirm(4)
        assert spool.read(1000) == JOURNAL[4:]
        spool.confirm(len(JOURNAL) - 4)
        assert spool.read(1000) == []
        assert spool.size == spool.entries == 0
    assert (tmp_path / "spool").stat().st_size == 0


def test_a_successor_finds_what_was_left(tmp_path: Path) -> None:
    with SpoolFile(tmp_path / "spool", LIMIT) as spool:
        spool.append(JOURNAL)
        spool.confirm(3)
    with SpoolFile(tmp_path / "spool", LIMIT) as spool:
        # What was confirmed comes again: the store knows it.
        assert spool.read(1000) == JOURNAL
        assert spool.entries == len(JOURNAL)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_torn_end_is_cut_off(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "spool"
    path.unlink(missing_ok=True)
    with SpoolFile(path, LIMIT) as spool:
        spool.append(JOURNAL)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut] + data.draw(st.binary(max_size=20)))
    with SpoolFile(path, LIMIT) as spool:
        left = spool.read(1000)
        assert left == JOURNAL[: len(left)]
        assert len(left) == spool.entries
        extra = entry(AgentChanged("later"), len(left) + 1)
        spool.append([extra])
        assert spool.read(1000) == [*left, extra]


def test_beyond_its_limit_it_takes_nothing(tmp_path: Path) -> None:
    with SpoolFile(tmp_path / "spool", 500) as spool:
        spool.append(JOURNAL[:2])
        size = spool.size
        with pytest.raises(JournalUnavailableError, match="full"):
            spool.append(JOURNAL)
        assert spool.size == size
        assert spool.read(10) == JOURNAL[:2]


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    with SpoolFile(tmp_path / "deep" / "spool", LIMIT):
        assert stat.S_IMODE((tmp_path / "deep" / "spool").stat().st_mode) == 0o600


def test_two_gateways_never_share_one(tmp_path: Path) -> None:
    with SpoolFile(tmp_path / "spool", LIMIT), pytest.raises(BlockingIOError):
        SpoolFile(tmp_path / "spool", LIMIT)
    with SpoolFile(tmp_path / "spool", LIMIT):
        pass


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As a disk that is full there: the kernel takes what fits, and refuses only what comes after."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_the_disk_took_only_in_part_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    with SpoolFile(path, LIMIT) as spool:
        spool.append(JOURNAL[:2])
        size = spool.size
        with files_of_at_most(size + 10), pytest.raises(JournalUnavailableError, match="cannot be written"):
            spool.append(JOURNAL[2:])
        assert path.stat().st_size == size
        spool.append(JOURNAL[2:])
        assert spool.read(1000) == JOURNAL


def test_damage_hides_what_is_behind_it_and_goes_when_it_is_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    with SpoolFile(path, LIMIT) as spool:
        spool.append(JOURNAL)
        spool.confirm(2)
        whole = bytearray(path.read_bytes())
        whole[len(whole) - spool.size + 10] ^= 0xFF
        path.write_bytes(whole)
        assert spool.read(1000) == []
        spool.confirm(spool.entries)
        assert spool.size == spool.entries == 0
        spool.append(JOURNAL[:1])
        assert spool.read(1000) == JOURNAL[:1]


def test_what_nobody_comes_back_to_is_adopted_once(tmp_path: Path) -> None:
    other, empty = tmp_path / "other", tmp_path / "empty"
    for path, kept in ((other, JOURNAL), (empty, [])):
        with SpoolFile(path, LIMIT) as spool:
            spool.append(kept)
    own = entry(AgentChanged("mine"), 1, "s2")
    with SpoolFile(tmp_path / "spool", LIMIT, orphans=[other, empty, tmp_path / "gone"]) as spool:
        spool.append([own])
        # Behind what was there, since that is read first.
        assert spool.read(1000) == [*JOURNAL, own]
        assert spool.entries == len(JOURNAL) + 1
    assert not other.exists()
    assert not empty.exists()


def test_many_entries_are_adopted_in_order(tmp_path: Path) -> None:
    many = [entry(AgentChanged(str(seq)), seq) for seq in range(1, 1300)]
    with SpoolFile(tmp_path / "other", LIMIT) as spool:
        spool.append(many)
    with SpoolFile(tmp_path / "spool", LIMIT, orphans=[tmp_path / "other"]) as spool:
        assert spool.read(2000) == many


def test_a_spool_that_somebody_has_open_is_left_alone(tmp_path: Path) -> None:
    with SpoolFile(tmp_path / "other", LIMIT) as other:
        other.append(JOURNAL)
        with SpoolFile(tmp_path / "spool", LIMIT, orphans=[tmp_path / "other"]) as spool:
            assert spool.entries == 0
        assert other.read(1000) == JOURNAL


def test_what_there_is_no_room_for_stays_where_it_is(tmp_path: Path) -> None:
    with SpoolFile(tmp_path / "other", LIMIT) as other:
        other.append(JOURNAL)
        size = other.size
    with SpoolFile(tmp_path / "spool", size - 1, orphans=[tmp_path / "other"]) as spool:
        assert spool.entries == 0
    with SpoolFile(tmp_path / "other", LIMIT) as other:
        assert other.read(1000) == JOURNAL


def test_opening_one_reads_nothing(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    with SpoolFile(path, LIMIT) as spool:
        spool.append(JOURNAL)
    with SpoolFile(path, LIMIT) as spool:
        path.write_bytes(path.read_bytes()[:-1])
        assert spool.entries == len(JOURNAL) - 1
