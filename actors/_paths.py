"""Directories and Unix sockets that only this user may touch.

Who can connect to a node link can take a caller's socket, so its directory is nobody else's; and a socket path has a hard
limit that a long temporary directory exceeds silently.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from hashlib import blake2s
from pathlib import Path

from orchestrator.cluster.reconcile import short_node
from orchestrator.errors import SettingsError

__all__ = ["MAX_SOCKET_PATH", "link_path", "make_private_directory", "new_private_directory", "shared_link_directory"]

# sun_path holds 108 bytes with its final zero; unix(7).
MAX_SOCKET_PATH = 107
_PREFIX = "rto-"
# What Ray appends to its temporary directory for its longest socket, with a process id of seven digits.
_RAY_SUFFIX = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"


def new_private_directory() -> Path:
    """Make an empty directory of our own (mode 0700) whose path is short enough for Ray's sockets.

    It is made in the configured temporary directory, or in /tmp where that path is too long. Raises SettingsError when both
    are.
    """
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp makes a new directory with a random name
        if len(os.fsencode(f"{parent}/{_PREFIX}12345678{_RAY_SUFFIX}")) <= MAX_SOCKET_PATH:
            return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    raise SettingsError("the temporary directory's path is too long for Unix sockets: set TMPDIR to a shorter one")


def shared_link_directory(namespace: str) -> str:
    """Name the directory of the node links where the processes of a node share no parent that could make one up.

    The same on every node and for every process of this user, and different for each namespace.
    """
    digest = blake2s(namespace.encode(), digest_size=4).hexdigest()
    return f"/tmp/{_PREFIX}{os.getuid()}-{digest}"  # noqa: S108 - make_private_directory checks whose it is


def make_private_directory(path: str) -> None:
    """Make the directory with mode 0700, or check that it is ours alone. Raises SettingsError when it is not."""
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)  # noqa: PTH102 - the mode must hold from the first moment on
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise SettingsError(f"{path} must be a directory that belongs to this user and is closed to all others")


def link_path(directory: str, node: str) -> str:
    """Return the path of a node's link socket. Raises SettingsError when it is too long for a socket."""
    path = f"{directory}/link-{short_node(node)}"
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise SettingsError(f"the path of the node link is longer than {MAX_SOCKET_PATH} bytes: {path}")
    return path
