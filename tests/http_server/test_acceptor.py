"""Which errors of accept() are waited out, which are passed over, and which end the loop."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from orchestrator.http_server.acceptor import Acceptor, listen


class FailingListener(socket.socket):
    """A listening socket whose accept fails first with the given errors."""

    def fail(self, *numbers: int) -> None:
        self.failures: Iterator[int] = iter(numbers)
        self.failed = asyncio.Event()

    def accept(self) -> tuple[socket.socket, Any]:
        number = next(self.failures, None)
        if number is not None:
            self.failed.set()
            raise OSError(number, "made up")
        return super().accept()


@pytest.fixture
def listener() -> Iterator[FailingListener]:
    with FailingListener() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.fail()
        yield listener


class Accepted:
    """Collects what an acceptor reports."""

    def __init__(self, listener: socket.socket) -> None:
        self.sockets: asyncio.Queue[socket.socket] = asyncio.Queue()
        self.failures: asyncio.Queue[OSError] = asyncio.Queue()
        self.acceptor = Acceptor(listener, lambda sock, _: self.sockets.put_nowait(sock), self.failures.put_nowait)


@pytest.fixture
async def client(listener: FailingListener) -> AsyncIterator[asyncio.StreamWriter]:
    _, writer = await asyncio.open_connection(*listener.getsockname())
    yield writer
    writer.close()


async def test_a_connection_is_given_non_blocking(listener: FailingListener, client: asyncio.StreamWriter) -> None:
    accepted = Accepted(listener)
    with await accepted.sockets.get() as sock:
        assert not sock.getblocking()
        assert sock.getpeername() == client.get_extra_info("sockname")
    accepted.acceptor.close()
    accepted.acceptor.close()
    assert listener.fileno() == -1


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN])
async def test_a_connection_that_broke_is_passed_over(
    listener: FailingListener, client: asyncio.StreamWriter, number: int
) -> None:
    listener.fail(number, number)
    accepted = Accepted(listener)
    (await accepted.sockets.get()).close()
    assert accepted.failures.empty()
    accepted.acceptor.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_a_shortage_is_waited_out(listener: FailingListener, client: asyncio.StreamWriter, number: int) -> None:
    listener.fail(number, number)
    accepted = Accepted(listener)
    (await accepted.sockets.get()).close()
    assert accepted.failures.empty()
    accepted.acceptor.close()


async def test_any_other_error_ends_the_loop_and_is_told(listener: FailingListener, client: asyncio.StreamWriter) -> None:
    listener.fail(errno.EINVAL)
    accepted = Accepted(listener)
    assert (await accepted.failures.get()).errno == errno.EINVAL
    _, second = await asyncio.open_connection(*listener.getsockname())
    second.close()
    assert accepted.sockets.empty()
    accepted.acceptor.close()


async def test_closing_while_a_shortage_is_waited_out_is_final(listener: FailingListener, client: asyncio.StreamWriter) -> None:
    listener.fail(errno.EMFILE)
    accepted = Accepted(listener)
    await listener.failed.wait()
    accepted.acceptor.close()
    await asyncio.sleep(0)
    assert accepted.sockets.empty()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_listening_takes_a_free_port_of_the_host(host: str) -> None:
    with await listen(host, 0) as listener:
        address, port = listener.getsockname()[:2]
        assert address == "127.0.0.1"
        assert port > 0
        with pytest.raises(OSError, match="in use"):
            await listen(host, port)


async def test_a_host_that_does_not_exist_is_an_os_error() -> None:
    with pytest.raises(OSError, match=r".+"):
        await listen("no-such-host.invalid", 0)
