"""A page keeps what was committed, all of it and nothing else, and is believed only if it is one."""

from __future__ import annotations

import mmap
import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import PageError, UserError
from orchestrator.transports.page_layout import FLIP_AT, SLOTS_AT
from orchestrator.transports.session_page import SessionPage
from orchestrator.transports.tcp_counters import TcpCounters
from tests.transports.crashing import dying_after, new_page, reopened
from tests.transports.support import untimed


def test_a_new_page_is_empty_in_every_process() -> None:
    page = new_page()
    other = SessionPage.open(os.dup(page.fileno()))
    for seen in (page, other):
        assert (seen.saved, seen.beats, seen.last_beat) == (b"", 0, 0.0)
        assert (seen.opened, seen.bound, seen.finished, seen.close_code) == (False, False, False, 0)
        assert (seen.audio.first, seen.audio.end) == (0, 0)
        seen.close()


def test_a_commit_changes_the_slot_that_was_not_valid_and_one_byte() -> None:
    page = new_page()
    before = bytes(page.memory[: mmap.PAGESIZE])
    live = before[FLIP_AT]
    page.save(b"snapshot")
    after = bytes(page.memory[: mmap.PAGESIZE])
    assert after[FLIP_AT] == 1 - live
    start = SLOTS_AT[1 - live]
    changed = [at for at in range(mmap.PAGESIZE) if before[at] != after[at]]
    assert set(changed) - {FLIP_AT} <= set(range(start, start + 128))
    page.save(b"another")
    assert page.memory[FLIP_AT] == live
    page.close()


def test_what_is_staged_is_seen_by_nobody_until_the_commit() -> None:
    page = new_page()
    page.save(b"old")
    page.staging = True
    page.save(b"new")
    page.save(b"newer")
    page.audio.push("audio")
    other = SessionPage.open(os.dup(page.fileno()))
    assert (page.saved, other.saved, other.audio.end) == (b"old", b"old", 0)
    page.staging = False
    assert page.dirty
    page.commit()
    assert (page.saved, other.saved) == (b"newer", b"newer")
    other.close()
    other = SessionPage.open(os.dup(page.fileno()))
    assert list(other.audio.payloads(0)) == ["audio"]
    other.close()
    page.close()


@untimed
@given(st.lists(st.tuples(st.binary(max_size=100), st.booleans(), st.integers(0, 60)), max_size=12))
def test_a_crash_anywhere_leaves_one_snapshot_or_the_other(saves: list[tuple[bytes, bool, int]]) -> None:
    page = new_page()
    committed = b""
    for data, dies, lines in saves:
        with dying_after(lines if dies else None) as died:
            page.save(data)
        if died[0]:
            page = reopened(page)
            assert page.saved in (committed, data)
        else:
            assert page.saved == data
        committed = page.saved
    page.close()


def test_a_snapshot_that_is_too_large_is_refused_and_changes_nothing() -> None:
    page = new_page(snapshot_bytes=10)
    page.save(b"0123456789")
    with pytest.raises(PageError, match="11 bytes: this page was made for 10"):
        page.save(b"0123456789a")
    assert page.saved == b"0123456789"
    page.close()


def test_the_heartbeat_is_seen_from_outside_and_goes_on_with_the_next_owner() -> None:
    page = new_page()
    watcher = SessionPage.open(os.dup(page.fileno()))
    page.beat()
    first = watcher.last_beat
    page.beat()
    assert watcher.beats == 2
    assert watcher.last_beat >= first > 0
    page = reopened(page)
    page.beat()
    assert watcher.beats == 3
    watcher.close()
    page.close()


def test_closing_twice_is_closing_once_and_the_memory_stays_with_others() -> None:
    page = new_page()
    page.save(b"kept")
    other = os.dup(page.fileno())
    page.close()
    page.close()
    assert page.fileno() == -1
    again = SessionPage.open(other)
    assert again.saved == b"kept"
    again.close()


@pytest.mark.parametrize("name", ["max_message", "outbound_bytes", "audio_bytes", "snapshot_bytes"])
@pytest.mark.parametrize("size", [-1, 1 << 31])
def test_sizes_that_make_no_sense_are_refused(name: str, size: int) -> None:
    sizes = {"max_message": 1000, "outbound_bytes": 1000, "audio_bytes": 1000, "snapshot_bytes": 0} | {name: size}
    with pytest.raises(UserError, match=name):
        SessionPage.create(**sizes)


def poke(page: SessionPage, at: int, data: bytes) -> None:
    page.memory[at : at + len(data)] = data


@pytest.mark.parametrize(
    ("at", "data", "text"),
    [
        pytest.param(0, b"SOMEPAGE", "no session page", id="magic"),
        pytest.param(8, struct.pack("=I", 99), "has layout 99", id="version"),
        pytest.param(12, struct.pack("=I", 12345), "damaged", id="size of a memory page"),
        pytest.param(16, struct.pack("=Q", 0), "damaged: max_message", id="size of nothing"),
        pytest.param(24, struct.pack("=Q", 10_000_000), "damaged: it has", id="another size"),
        pytest.param(FLIP_AT, b"\2", "no valid slot", id="flip"),
        pytest.param(SLOTS_AT[0], struct.pack("=q", -1), "impossible values", id="start before the area"),
        pytest.param(SLOTS_AT[0] + 24, struct.pack("=q", -1), "impossible values", id="end before the start"),
        pytest.param(SLOTS_AT[0] + 32, struct.pack("=q", 1 << 40), "impossible values", id="queue past its half"),
        pytest.param(SLOTS_AT[0] + 64, struct.pack("=q", 7), "audio does not add up", id="audio without bytes"),
        pytest.param(SLOTS_AT[0] + 80, struct.pack("=q", 8), "audio does not add up", id="bytes without audio"),
        pytest.param(SLOTS_AT[0] + 100, struct.pack("=I", 101), "impossible values", id="snapshot too long"),
    ],
)
def test_a_page_that_is_damaged_is_refused_and_stays_the_callers(at: int, data: bytes, text: str) -> None:
    page = new_page()
    poke(page, at, data)
    fd = os.dup(page.fileno())
    with pytest.raises(PageError, match=text):
        SessionPage.open(fd)
    os.close(fd)
    page.close()


def test_what_is_no_page_is_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(PageError, match="cannot be read"):
        SessionPage.open(ours.fileno())
    fd = os.memfd_create("empty")
    with pytest.raises(PageError, match="no session page"):
        SessionPage.open(fd)
    os.close(fd)


def test_no_process_can_shorten_a_page_under_the_others() -> None:
    page = new_page()
    with pytest.raises(PermissionError):
        os.ftruncate(page.fileno(), 0)
    page.close()


def test_a_page_has_one_connection_until_it_forgets_it() -> None:
    page = new_page()
    with socket.socket() as first, socket.socket() as second:
        page.bind(first, TcpCounters(taken=7, written=1, closed=False), b"he")
        assert page.bound
        assert not page.opened
        with first.dup() as duplicate:
            assert page.is_of(duplicate)
        assert not page.is_of(second)
        with pytest.raises(PageError, match="has a connection already"):
            page.bind(second, TcpCounters(0, 0, closed=False), b"")
        page.audio.push("heard")
        page.save(b"kept")
        page.mark_opened()
        page.mark_closing(1000, by_peer=True)
        page.commit()
        assert page.opened
        page = reopened(page)
        assert (page.close_code, page.closed_by_peer) == (1000, True)
        page.forget_leg()
        assert (page.bound, page.opened, page.close_code, page.closed_by_peer) == (False, False, 0, False)
        page.bind(second, TcpCounters(0, 0, closed=False), b"")
        assert (page.saved, list(page.audio.payloads(0))) == (b"kept", ["heard"])
    page.close()


def test_a_head_that_does_not_fit_is_refused() -> None:
    page = new_page()
    with socket.socket() as sock, pytest.raises(PageError, match="were read ahead"):
        page.bind(sock, TcpCounters(0, 0, closed=False), bytes(page.layout.receive_size + 1))
    page.close()


def test_a_page_of_generous_sizes_takes_little_memory() -> None:
    page = SessionPage.create(max_message=4 << 20, outbound_bytes=1 << 20, audio_bytes=1 << 20, snapshot_bytes=1 << 16)
    page.save(b"x")
    page.audio.push("x")
    assert os.fstat(page.fileno()).st_blocks * 512 <= 4 * mmap.PAGESIZE
    page.close()
