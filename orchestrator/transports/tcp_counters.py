"""What the kernel knows of a TCP connection: how much of its stream was taken out, and how much was put in.

These two counts outlive any process that holds the socket, so they tell a new owner exactly what the last one did. Linux
only; the bytes counted are those of the stream, without the ends of it, which the kernel counts as a byte each.

Source: struct tcp_info of linux/tcp.h; tcp(7) for SIOCINQ and SIOCOUTQ; tcp_rcv_nxt_update and tcp_inq of the kernel.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from typing import Final, NamedTuple

from orchestrator.errors import PageError

__all__ = ["TcpCounters", "read_counters"]

# FIONREAD and TIOCOUTQ, as tcp(7) names them for sockets.
_SIOCINQ: Final = 0x541B
_SIOCOUTQ: Final = 0x5411
_INFO_SIZE: Final = 256
_STATE: Final = 0
_BYTES: Final = struct.Struct("=QQ")  # tcpi_bytes_acked, tcpi_bytes_received
_BYTES_AT: Final = 120
_INT: Final = struct.Struct("=i")

# enum of net/tcp_states.h
_FIN_WAIT1: Final = 4
_FIN_WAIT2: Final = 5
_TIME_WAIT: Final = 6
_CLOSE: Final = 7
_CLOSE_WAIT: Final = 8
_LAST_ACK: Final = 9
_CLOSING: Final = 11
_END_RECEIVED: Final = frozenset({_TIME_WAIT, _CLOSE_WAIT, _LAST_ACK, _CLOSING})
_END_SENT: Final = frozenset({_FIN_WAIT1, _FIN_WAIT2, _TIME_WAIT, _LAST_ACK, _CLOSING})

# Two looks that agree usually come at once; a peer that floods us stops when the window is full, since nobody reads.
_ATTEMPTS: Final = 10_000


class TcpCounters(NamedTuple):
    """One moment of a connection.

    `taken` are the bytes that somebody has read from the socket, `written` those that the kernel has accepted for sending,
    both counted from the connection's beginning. `closed` says that the connection is over, and then the counts may be off.
    """

    taken: int
    written: int
    closed: bool


def read_counters(sock: socket.socket) -> TcpCounters:
    """Read both counts as they stand together; nobody else may read or write the socket meanwhile.

    Raises PageError if this is no TCP socket, or if the kernel is too old to count bytes (Linux 4.2 does).
    """
    try:
        before = _info(sock)
        for _ in range(_ATTEMPTS):
            # The kernel has no call for all of them. What arrives or is acknowledged between the calls would be counted by
            # one and not by the other, so the calls between two equal looks are the ones that count.
            unread = _ioctl(sock, _SIOCINQ)
            unacknowledged = _ioctl(sock, _SIOCOUTQ)
            after = _info(sock)
            if after == before:
                return _counters(before, unread, unacknowledged)
            before = after
    except OSError as exc:
        name = os.strerror(exc.errno) if exc.errno else type(exc).__name__
        raise PageError(
            f"the kernel does not count this connection's bytes ({name}); a session page needs TCP on Linux"
        ) from exc
    raise PageError("the connection's counters do not come to rest; is another process still reading the socket?")


def _counters(info: tuple[int, int, int], unread: int, unacknowledged: int) -> TcpCounters:
    state, acknowledged, received = info
    return TcpCounters(
        taken=received - unread - (state in _END_RECEIVED),
        written=acknowledged + unacknowledged - (state in _END_SENT),
        closed=state == _CLOSE,
    )


def _info(sock: socket.socket) -> tuple[int, int, int]:
    """Return state, bytes acknowledged and bytes received."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    if len(info) < _BYTES_AT + _BYTES.size:
        raise PageError("this kernel does not count the bytes of a connection; a session page needs Linux 4.2 or newer")
    return (info[_STATE], *_BYTES.unpack_from(info, _BYTES_AT))


def _ioctl(sock: socket.socket, request: int) -> int:
    value: int = _INT.unpack(fcntl.ioctl(sock, request, bytes(_INT.size)))[0]
    return value
