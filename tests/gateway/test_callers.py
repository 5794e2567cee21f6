"""What the gateway holds of callers that it gave away."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cluster.link_messages import Adopt
from orchestrator.gateway.callers import Caller, Callers
from orchestrator.http_server.answers import Refusal
from orchestrator.transports.session_page import SessionPage

REFUSAL = Refusal(status=503, code="no", message="no")


def a_page() -> SessionPage:
    return SessionPage.create(max_message=65536, outbound_bytes=65536, audio_bytes=65536, snapshot_bytes=1024)


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def caller(session_id: str, sock: socket.socket) -> Caller:
    return Caller(Adopt(session_id, "openai", b"head", "peer", 1.5), sock.dup(), a_page())


def test_a_caller_who_was_not_answered_hears_why_and_is_gone_whoever_else_holds_it(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    before = open_fds()
    callers = Callers()
    callers.keep(caller("a", ours))
    callers.refuse("a", REFUSAL)
    callers.refuse("a", REFUSAL)
    assert theirs.recv(1000).startswith(b"HTTP/1.1 503 ")
    assert theirs.recv(1) == b""
    assert len(callers) == 0
    assert open_fds() == before


def test_a_caller_who_has_left_is_refused_in_vain(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    callers = Callers()
    callers.keep(caller("a", ours))
    theirs.close()
    callers.refuse("a", REFUSAL)
    assert callers.get("a") is None


def test_what_is_dropped_goes_on_with_whoever_else_has_it(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    before = open_fds()
    callers = Callers()
    callers.keep(caller("a", ours))
    callers.keep(caller("a", ours))
    callers.drop("a")
    callers.drop("a")
    assert open_fds() == before
    ours.send(b"x")
    assert theirs.recv(1) == b"x"


def test_another_owner_is_given_duplicates_and_the_words_of_the_first_hand_over(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    before = open_fds()
    callers = Callers()
    callers.keep(caller("a", ours))
    held = callers.get("a")
    assert held is not None
    held.page.save(b"what must be known")
    sock, page = held.descriptors()
    message = held.recover("actor_died", 2.5)
    assert (message.head, message.accepted_at, message.cause, message.lost_at) == (b"head", 1.5, "actor_died", 2.5)
    callers.close()
    with socket.socket(fileno=sock) as taken:
        taken.send(b"x")
    assert theirs.recv(1) == b"x"
    opened = SessionPage.open(page)
    assert opened.saved == b"what must be known"
    opened.close()
    assert open_fds() == before
