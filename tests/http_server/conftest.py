"""Both event loops: the actors have uvloop, and the two differ in how they watch a descriptor."""

from tests.gateway.conftest import link_path, pytest_asyncio_loop_factories

__all__ = ["link_path", "pytest_asyncio_loop_factories"]
