"""Private directories and socket paths. Starts no Ray."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from actors._paths import (
    MAX_SOCKET_PATH,
    link_path,
    make_private_directory,
    new_private_directory,
    shared_link_directory,
)
from orchestrator.errors import SettingsError

NODE = "0123456789abcdef" * 3 + "01234567"


def test_a_private_directory_is_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "link"
    before = os.umask(0)
    try:
        make_private_directory(str(path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    make_private_directory(str(path))


def test_a_directory_that_others_may_enter_a_file_and_a_symbolic_link_are_refused(tmp_path: Path) -> None:
    opened = tmp_path / "open"
    opened.mkdir()
    opened.chmod(0o755)
    file = tmp_path / "file"
    file.touch(mode=0o600)
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(private)
    for path in (opened, file, link):
        with pytest.raises(SettingsError, match="closed to all others"):
            make_private_directory(str(path))


def test_a_link_path_names_its_node_and_fits_a_socket() -> None:
    path = link_path("/tmp/rto-12345678/link", NODE)
    assert path == "/tmp/rto-12345678/link/link-0123456789ab"
    with pytest.raises(SettingsError, match="longer than"):
        link_path("/" + "d" * MAX_SOCKET_PATH, NODE)


def test_a_shared_directory_is_the_same_for_all_processes_of_a_deployment_and_another_for_the_next() -> None:
    assert shared_link_directory("one") == shared_link_directory("one")
    assert shared_link_directory("one") != shared_link_directory("two")
    assert len(link_path(shared_link_directory("n" * 500), NODE)) <= MAX_SOCKET_PATH


def test_a_long_temporary_directory_is_avoided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("d" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    directory = new_private_directory()
    try:
        assert not directory.is_relative_to(long)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    finally:
        directory.rmdir()
