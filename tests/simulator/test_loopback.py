"""Which names stand for this machine."""

from __future__ import annotations

import pytest

from orchestrator.simulator.loopback import is_loopback


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1", "127.1.2.3", "::1"])
def test_names_of_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.example", "127.0.0.1.example", "2130706433"])
def test_everything_else_is_elsewhere(host: str) -> None:
    assert not is_loopback(host)
