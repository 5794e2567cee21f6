"""A whole service, started and ended from a command: what `serve`, `demo` and `loadtest` have in common."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from actors.launch import Cluster

__all__ = ["running_service", "sigterm_as_interrupt"]


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, with KeyboardInterrupt, so that what was started is ended. Main thread only."""

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def running_service(
    settings: Settings,
    *,
    address: str | None = None,
    graceful_timeout: float = 0.0,
    on_progress: Callable[[str], None] | None = None,
) -> Iterator[Cluster]:
    """Start a service, and end it with the block, however that ends; running calls then get `graceful_timeout` seconds.

    Blocks for some seconds at both ends. Raises what `actors.launch.launch` raises.
    """
    # Imported here and not above: the library itself must not need Ray, and only these commands reach for the cluster.
    try:
        from actors.launch import launch
    except ModuleNotFoundError as error:
        raise UserError(f"this command needs {error.name}: pip install realtime-orchestrator") from error

    with sigterm_as_interrupt():
        try:
            cluster = launch(settings, address=address, on_progress=on_progress)
        except SystemExit:
            # What Ray makes of SIGTERM while it starts; `launch` has cleaned up.
            raise KeyboardInterrupt from None
        try:
            yield cluster
        finally:
            cluster.shutdown(graceful_timeout)
