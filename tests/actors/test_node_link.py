"""The node link over real Unix sockets: messages, sockets, overload, and the end of either side."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import shutil
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from actors.node_link import Link, NodeLinkClient, NodeLinkServer
from orchestrator.cluster.link_messages import (
    Adopt,
    Drain,
    EndSession,
    FromActor,
    Hello,
    JournalAcknowledged,
    JournalLost,
    JournalRefused,
    ListenerKept,
    Recover,
    Refused,
    Release,
    SessionHeld,
    StateParcel,
    Up,
    decode_from_gateway,
    encode,
)
from orchestrator.errors import EndReason, SettingsError, WireError
from orchestrator.gateway.links import ActorLink
from orchestrator.journal.parcels import state_parcels

ADOPT = Adopt("sess_1", "openai", b"GET / HTTP/1.1\r\n\r\n", "127.0.0.1:1", 1.5)
REASON = EndReason("test", "a test ended it")


def a_page() -> int:
    """Stands for a page's descriptor, which the link does not look into."""
    return os.memfd_create("page")


class GatewaySide:
    """Notes what the links tell the gateway."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[tuple[ActorLink, FromActor]] = asyncio.Queue()
        self.lost: asyncio.Queue[tuple[ActorLink, EndReason]] = asyncio.Queue()
        self.held: asyncio.Queue[tuple[SessionHeld, socket.socket, int]] = asyncio.Queue()
        self.listeners: asyncio.Queue[socket.socket] = asyncio.Queue()

    def on_session_held(self, link: ActorLink, message: SessionHeld, sock: socket.socket, page: int) -> None:
        self.held.put_nowait((message, sock, page))

    def on_listener(self, link: ActorLink, sock: socket.socket) -> None:
        self.listeners.put_nowait(sock)

    def on_link_message(self, link: ActorLink, message: FromActor) -> None:
        self.messages.put_nowait((link, message))

    def on_link_lost(self, link: ActorLink, reason: EndReason) -> None:
        self.lost.put_nowait((link, reason))


class ActorSide:
    """Notes what the link tells a session actor."""

    def __init__(self) -> None:
        self.adopted: asyncio.Queue[tuple[socket.socket, int, Adopt]] = asyncio.Queue()
        self.recovered: asyncio.Queue[tuple[socket.socket, int, bytes, Recover]] = asyncio.Queue()
        self.listeners: asyncio.Queue[socket.socket] = asyncio.Queue()
        self.other: asyncio.Queue[object] = asyncio.Queue()

    def on_adopt(self, sock: socket.socket, page: int, message: Adopt) -> None:
        self.adopted.put_nowait((sock, page, message))

    def on_recover(self, sock: socket.socket, page: int, state: bytes, message: Recover) -> None:
        self.recovered.put_nowait((sock, page, state, message))

    def on_release(self, message: Release) -> None:
        self.other.put_nowait(message)

    def on_listener(self, sock: socket.socket) -> None:
        self.listeners.put_nowait(sock)

    def on_end_session(self, message: EndSession) -> None:
        self.other.put_nowait(message)

    def on_drain(self) -> None:
        self.other.put_nowait("drain")

    def on_journal(self, message: JournalAcknowledged | JournalRefused | JournalLost) -> None:
        self.other.put_nowait(message)

    def on_link_up(self) -> None:
        self.other.put_nowait("up")

    def on_link_lost(self, reason: EndReason) -> None:
        self.other.put_nowait(reason)


@pytest.fixture
def path() -> Iterator[str]:
    directory = tempfile.mkdtemp(prefix="rto-test-")
    yield f"{directory}/link"
    shutil.rmtree(directory)


@pytest.fixture
def gateway() -> GatewaySide:
    return GatewaySide()


@pytest.fixture
def actor() -> ActorSide:
    return ActorSide()


@pytest.fixture
async def server(path: str, gateway: GatewaySide) -> AsyncIterator[NodeLinkServer]:
    server = NodeLinkServer(path, gateway)
    server.start()
    yield server
    server.close()


@pytest.fixture
async def client(path: str, actor: ActorSide, server: NodeLinkServer) -> AsyncIterator[NodeLinkClient]:
    client = NodeLinkClient(path, lambda: Hello("a1", 42, 1), actor)
    client.start()
    assert await actor.other.get() == "up"
    yield client
    client.close()


@pytest.fixture
async def link(gateway: GatewaySide, client: NodeLinkClient) -> ActorLink:
    """The gateway's end of the client's link."""
    link, hello = await gateway.messages.get()
    assert hello == Hello("a1", 42, 1)
    return link


@pytest.fixture
async def raw(gateway: GatewaySide, server: NodeLinkServer) -> AsyncIterator[tuple[socket.socket, ActorLink]]:
    """A peer that speaks to the server by hand, and the server's end of its link."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(server.path)
        sock.send(encode(Hello("raw", 1, 1)))
        link, _ = await gateway.messages.get()
        yield sock, link


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_messages_go_both_ways_in_order(
    client: NodeLinkClient, link: ActorLink, gateway: GatewaySide, actor: ActorSide
) -> None:
    for number in range(500):
        client.send(Up("sess_1", number))
        link.send(EndSession(f"sess_{number}", REASON))
    link.send(Drain())
    for number in range(500):
        assert await gateway.messages.get() == (link, Up("sess_1", number))
        assert await actor.other.get() == EndSession(f"sess_{number}", REASON)
    assert await actor.other.get() == "drain"


async def test_a_socket_arrives_and_no_descriptor_stays_behind(link: ActorLink, actor: ActorSide) -> None:
    before = open_fds()
    ours, theirs = socket.socketpair()
    assert link.offer(ADOPT, (theirs.detach(), a_page()))
    sock, page, message = await actor.adopted.get()
    assert message == ADOPT
    assert not os.get_inheritable(page)
    os.close(page)
    assert not sock.getblocking()
    assert not os.get_inheritable(sock.fileno())
    ours.sendall(b"hello")
    assert await asyncio.get_running_loop().sock_recv(sock, 10) == b"hello"
    sock.close()
    assert ours.recv(1) == b""
    ours.close()
    assert open_fds() == before


@pytest.mark.parametrize("given", ["nothing", "no socket", "no page"])
async def test_a_hand_over_without_a_socket_and_a_page_is_refused(
    link: ActorLink, gateway: GatewaySide, actor: ActorSide, given: str
) -> None:
    before = open_fds()
    ours, theirs = socket.socketpair()
    fds: tuple[int, ...] = ()
    if given != "nothing":
        fds = (a_page(), a_page()) if given == "no socket" else (theirs.detach(),)
    theirs.close()
    ours.close()
    with capture_logs():
        assert link.offer(ADOPT, fds)
        _, message = await gateway.messages.get()
    assert open_fds() == before
    assert isinstance(message, Refused)
    assert message.session_id == ADOPT.session_id
    assert actor.adopted.empty()


async def test_a_session_that_is_recovered_comes_with_its_state(link: ActorLink, actor: ActorSide) -> None:
    ours, theirs = socket.socketpair()
    recover = Recover("sess_1", "openai", b"head", "127.0.0.1:1", 1.5, "actor_died", 2.5)
    for part, more in state_parcels(state := os.urandom(150_000)):
        link.send(StateParcel("sess_1", part, more))
    link.send(StateParcel("sess_2", b"of another"))
    assert link.offer(recover, (theirs.detach(), a_page()))
    sock, page, given, message = await actor.recovered.get()
    assert (given, message) == (state, recover)
    sock.close()
    os.close(page)
    ours.close()
    link.send(Release("sess_1"))
    assert await actor.other.get() == Release("sess_1")


async def test_what_an_actor_holds_for_a_gateway_goes_there_and_back(
    client: NodeLinkClient, link: ActorLink, gateway: GatewaySide, actor: ActorSide
) -> None:
    before = open_fds()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        link.send(ListenerKept(), (os.dup(listening.fileno()),))
        kept = await actor.listeners.get()
        assert kept.getsockname() == listening.getsockname()
        client.send(ListenerKept(), (kept.detach(),))
        with await gateway.listeners.get() as back:
            assert back.getsockname() == listening.getsockname()
    ours, theirs = socket.socketpair()
    held = SessionHeld("sess_1", "openai", b"head", "127.0.0.1:1", 1.5)
    client.send(held, (theirs.detach(), a_page()))
    message, sock, page = await gateway.held.get()
    assert message == held
    sock.close()
    os.close(page)
    with capture_logs() as logs:
        client.send(held, (ours.detach(),))
        client.send(held)
        client.send(Up("sess_1", 0.5))
        assert (await gateway.messages.get())[1] == Up("sess_1", 0.5)
    assert [line["event"] for line in logs] == ["link_message_refused"] * 2
    assert open_fds() == before


async def test_a_descriptor_that_nobody_expects_is_closed(
    raw: tuple[socket.socket, ActorLink], link: ActorLink, gateway: GatewaySide, actor: ActorSide
) -> None:
    peer, _ = raw
    ours, theirs = socket.socketpair()
    before = open_fds()
    socket.send_fds(peer, [encode(Up("sess_1", 0.5))], [theirs.fileno()])
    assert (await gateway.messages.get())[1] == Up("sess_1", 0.5)
    assert open_fds() == before
    assert link.offer(Drain(), (theirs.detach(),))
    assert await actor.other.get() == "drain"
    assert ours.recv(1) == b""
    ours.close()


async def test_garbage_is_refused_and_the_link_goes_on(raw: tuple[socket.socket, ActorLink], gateway: GatewaySide) -> None:
    peer, _ = raw
    with capture_logs() as logs:
        peer.send(b"garbage")
        peer.send(encode(Drain()))
        peer.send(bytes(100_000))
        peer.send(encode(Up("sess_1", 0.5)))
        assert (await gateway.messages.get())[1] == Up("sess_1", 0.5)
    assert [line["event"] for line in logs] == ["link_message_refused"] * 3


async def test_a_message_that_is_too_large_is_refused_and_nothing_is_taken(link: ActorLink) -> None:
    ours, theirs = socket.socketpair()
    with pytest.raises(WireError, match="exceeds"):
        link.offer(Adopt("sess_1", "openai", bytes(70_000), "", 0.0), (theirs.fileno(),))
    theirs.send(b"x")
    assert ours.recv(1) == b"x"
    ours.close()
    theirs.close()


async def test_what_the_kernel_does_not_take_waits_and_goes_out_in_order(
    raw: tuple[socket.socket, ActorLink],
) -> None:
    peer, link = raw
    pairs = [socket.socketpair() for _ in range(20)]
    for number in range(600):
        link.send(EndSession(f"sess_{number}", REASON))
    for _, theirs in pairs:
        assert link.offer(ADOPT, (theirs.detach(), a_page()))
    assert isinstance(link, Link)
    assert link.queued > 0
    peer.setblocking(False)
    for number in range(600):
        data = await asyncio.get_running_loop().sock_recv(peer, 65536)
        assert decode_from_gateway(data) == EndSession(f"sess_{number}", REASON)
    for ours, _ in pairs:
        data, fds = await received(peer)
        assert decode_from_gateway(data) == ADOPT
        fd, page = fds
        os.close(page)
        with socket.socket(fileno=fd) as theirs:
            theirs.send(b"x")
            assert ours.recv(1) == b"x"
        ours.close()
    assert link.queued == 0


async def received(peer: socket.socket) -> tuple[bytes, list[int]]:
    while True:
        try:
            data, fds, _, _ = socket.recv_fds(peer, 65536, 4)
        except BlockingIOError:
            await asyncio.sleep(0)
        else:
            return data, fds


async def test_a_peer_that_does_not_read_is_refused_offers_and_then_given_up(
    raw: tuple[socket.socket, ActorLink], gateway: GatewaySide
) -> None:
    _, link = raw
    before = open_fds()
    offered = []
    ours, theirs = socket.socketpair()
    while link.offer(ADOPT, (fd := os.dup(theirs.fileno()),)):
        offered.append(fd)
    os.close(fd)
    assert len(offered) >= 1024
    link.send(Drain())
    lost, reason = await gateway.lost.get()
    assert lost is link
    assert reason.code == "link_overflow"
    assert not link.offer(Drain())
    link.send(Drain())
    theirs.close()
    ours.close()
    # Those that waited were closed with the link; those in the dead peer's socket buffer are the kernel's.
    assert open_fds() <= before


@pytest.mark.parametrize("side", ["peer", "link"])
async def test_the_end_is_told_once_and_later_than_the_call_that_brings_it(
    raw: tuple[socket.socket, ActorLink], gateway: GatewaySide, side: str
) -> None:
    peer, link = raw
    if side == "peer":
        peer.close()
    else:
        link.close(REASON)
        link.close(EndReason("second"))
        assert gateway.lost.empty()
    lost, reason = await gateway.lost.get()
    assert lost is link
    assert reason.code == ("link_lost" if side == "peer" else "test")
    await asyncio.sleep(0)
    assert gateway.lost.empty()


async def test_a_peer_that_died_with_messages_unread_is_lost_too(
    raw: tuple[socket.socket, ActorLink], gateway: GatewaySide
) -> None:
    peer, link = raw
    link.send(Drain())
    peer.close()
    link.send(Drain())
    assert (await gateway.lost.get())[1].code == "link_lost"


async def test_the_client_comes_back_with_a_new_introduction(
    path: str, gateway: GatewaySide, actor: ActorSide, server: NodeLinkServer
) -> None:
    pids = iter(range(100))
    client = NodeLinkClient(path, lambda: Hello("a1", next(pids), 1), actor)
    client.start()
    client.start()
    for pid in range(3):
        assert await actor.other.get() == "up"
        assert client.connected
        link, hello = await gateway.messages.get()
        assert hello == Hello("a1", pid, 1)
        link.close(REASON)
        lost = await actor.other.get()
        assert isinstance(lost, EndReason)
        assert lost.code == "link_lost"
        client.send(Up("sess_1", 1.0))
        assert not client.offer(Up("sess_1", 1.0))
    client.close()


async def test_the_client_waits_for_a_gateway_that_is_not_there_yet(path: str, gateway: GatewaySide, actor: ActorSide) -> None:
    client = NodeLinkClient(path, lambda: Hello("a1", 1, 1), actor)
    client.start()
    assert not client.connected
    server = NodeLinkServer(path, gateway)
    server.start()
    assert await actor.other.get() == "up"
    server.close()
    assert isinstance(await actor.other.get(), EndReason)
    successor = NodeLinkServer(path, gateway)
    successor.start()
    assert await actor.other.get() == "up"
    client.close()
    client.close()
    successor.close()


async def test_a_closed_client_tries_no_more(path: str, actor: ActorSide, gateway: GatewaySide) -> None:
    client = NodeLinkClient(path, lambda: Hello("a1", 1, 1), actor)
    client.start()
    client.close()
    server = NodeLinkServer(path, gateway)
    server.start()
    other = NodeLinkClient(path, lambda: Hello("a2", 2, 1), ActorSide())
    other.start()
    assert (await gateway.messages.get())[1] == Hello("a2", 2, 1)
    assert actor.other.empty()
    assert gateway.messages.empty()
    other.close()
    server.close()


async def test_the_retries_grow_to_a_second(actor: ActorSide, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    asked: list[tuple[float, Callable[[], None]]] = []
    monkeypatch.setattr(loop, "call_later", lambda delay, callback: asked.append((delay, callback)))
    client = NodeLinkClient("/nowhere/link", lambda: Hello("a1", 1, 1), actor)
    client.start()
    for _ in range(8):
        asked[-1][1]()
    assert [delay for delay, _ in asked] == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0, 1.0]


async def test_the_directory_must_be_ours_alone(path: str, gateway: GatewaySide) -> None:
    directory = Path(path).parent
    directory.chmod(0o755)
    with pytest.raises(SettingsError, match="belongs to this user"):
        NodeLinkServer(path, gateway).start()
    directory.rmdir()
    server = NodeLinkServer(path, gateway)
    server.start()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    server.close()


@pytest.fixture
def a_directory(path: str) -> Path:
    directory = Path(path)
    directory.mkdir()
    return directory


async def test_a_path_that_cannot_be_used_is_said_in_words(path: str, a_directory: Path, gateway: GatewaySide) -> None:
    with pytest.raises(SettingsError, match="107"):
        NodeLinkServer(path + "x" * 100, gateway).start()
    with pytest.raises(SettingsError, match="cannot listen"):
        NodeLinkServer(str(a_directory), gateway).start()


async def test_when_no_descriptor_can_be_opened_the_hand_over_is_refused(
    link: ActorLink, gateway: GatewaySide, actor: ActorSide
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ours, theirs = socket.socketpair()
    fd = theirs.detach()
    with capture_logs() as logs:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            assert link.offer(ADOPT, (fd,))
            _, message = await gateway.messages.get()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert isinstance(message, Refused)
    assert "link_descriptors_lost" in [line["event"] for line in logs]
    assert actor.adopted.empty()
    assert ours.recv(1) == b""
    ours.close()


class BrokenListener(socket.socket):
    """A socket whose accept fails with an error that no waiting mends."""

    def accept(self) -> tuple[socket.socket, Any]:
        raise OSError(errno.EINVAL, "made up")


async def test_when_no_new_link_can_come_the_server_says_so(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = NodeLinkServer(path, GatewaySide())
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", BrokenListener)
        server.start()
    assert server.failure is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as actor:
        actor.connect(path)
        while server.failure is None:  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0)
    assert (server.failure.code, server.failure.by) == ("link_accept_failed", "infrastructure")
    server.close()
