"""What was taken and written is counted exactly, whatever the peer does and however the connection stands."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.errors import PageError
from orchestrator.transports import tcp_counters
from orchestrator.transports.tcp_counters import read_counters
from tests.transports.support import PATIENCE


@contextlib.contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, theirs:
        yield ours, theirs


def settled(sock: socket.socket, unread: int) -> None:
    """Wait until so much has arrived."""
    deadline = time.monotonic() + PATIENCE
    while struct.unpack("=i", fcntl.ioctl(sock, 0x541B, bytes(4)))[0] != unread:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_what_is_taken_counts_and_what_only_arrived_does_not() -> None:
    with connection() as (ours, theirs):
        start = read_counters(ours)
        theirs.sendall(b"0123456789")
        settled(ours, 10)
        assert read_counters(ours) == start
        ours.recv(4)
        assert read_counters(ours).taken == start.taken + 4
        # A look is no taking.
        ours.recv(6, socket.MSG_PEEK)
        assert read_counters(ours).taken == start.taken + 4


def test_what_the_kernel_accepted_counts_as_written_before_it_is_acknowledged() -> None:
    with connection() as (ours, _):
        start = read_counters(ours)
        ours.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += ours.send(bytes(10_000))
        assert read_counters(ours).written == start.written + sent


@pytest.mark.parametrize("read", [0, 4, 10])
def test_the_end_of_either_stream_is_no_byte(read: int) -> None:
    with connection() as (ours, theirs):
        start = read_counters(ours)
        theirs.sendall(b"0123456789")
        theirs.shutdown(socket.SHUT_WR)
        settled(ours, 10)
        ours.recv(read)
        ours.send(b"abc")
        assert read_counters(ours) == (start.taken + read, start.written + 3, False)
        ours.shutdown(socket.SHUT_WR)
        counters = read_counters(ours)
        # With both ends over the connection may be gone, and its counts are not to be used.
        assert counters.closed or counters == (start.taken + read, start.written + 3, False)


def test_the_end_of_our_stream_is_no_byte() -> None:
    with connection() as (ours, theirs):
        start = read_counters(ours)
        ours.send(b"abc")
        ours.shutdown(socket.SHUT_WR)
        assert theirs.recv(10) == b"abc"
        assert theirs.recv(10) == b""
        theirs.sendall(b"0123456789")
        settled(ours, 10)
        ours.recv(4)
        assert read_counters(ours) == (start.taken + 4, start.written + 3, False)


def test_an_urgent_byte_in_line_is_a_byte() -> None:
    with connection() as (ours, theirs):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        start = read_counters(ours)
        theirs.sendall(b"abc")
        theirs.send(b"!", socket.MSG_OOB)
        theirs.sendall(b"def")
        settled(ours, 7)
        assert read_counters(ours) == start
        received = ours.recv(100)
        assert read_counters(ours).taken == start.taken + len(received)
        received += ours.recv(100)
        assert received == b"abc!def"
        assert read_counters(ours).taken == start.taken + 7


def test_a_connection_that_was_reset_is_over() -> None:
    with connection() as (ours, theirs):
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        deadline = time.monotonic() + PATIENCE
        while not read_counters(ours).closed:
            assert time.monotonic() < deadline


def test_a_duplicate_says_the_same() -> None:
    with connection() as (ours, theirs):
        theirs.sendall(b"0123456789")
        settled(ours, 10)
        ours.recv(3)
        with ours.dup() as duplicate:
            assert read_counters(duplicate) == read_counters(ours)


class Sock:
    """A socket whose answers the test chooses."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = answers

    def getsockopt(self, *_: Any) -> bytes:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def info(acknowledged: int, received: int, *, size: int = 200) -> bytes:
    data = bytearray(size)
    data[0] = 1
    data[120:136] = struct.pack("=QQ", acknowledged, received)
    return bytes(data[:size])


def test_what_arrives_between_the_calls_makes_it_look_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel counts 10 received at first; 5 more come before it says that 15 are unread.
    unread = iter([15, 0, 15, 0])
    monkeypatch.setattr(tcp_counters, "_ioctl", lambda *_: next(unread))
    sock: Any = Sock([info(0, 10), info(0, 15), info(0, 15)])
    assert read_counters(sock) == (0, 0, False)


def test_counters_that_never_rest_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_counters, "_ioctl", lambda *_: 0)
    sock: Any = Sock([info(0, number) for number in range(20_000)])
    with pytest.raises(PageError, match="do not come to rest"):
        read_counters(sock)


def test_a_kernel_that_does_not_count_is_refused() -> None:
    sock: Any = Sock([info(0, 0)[:104]])
    with pytest.raises(PageError, match=r"needs Linux 4\.2"):
        read_counters(sock)


def test_what_is_no_tcp_connection_is_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(PageError, match="needs TCP on Linux"):
        read_counters(ours)
