"""Both event loops, and a place for sockets."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run on both loops: the actors have uvloop, and the two differ in how they watch a descriptor."""
    del config, item
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def link_path() -> Iterator[str]:
    """A path for a node link: short, since pytest's own directories can exceed what a Unix socket takes."""
    directory = tempfile.mkdtemp(prefix="rto-test-")
    yield f"{directory}/link"
    shutil.rmtree(directory)
