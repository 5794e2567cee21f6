"""A whole deployment on real Ray, with the offline endpoint in a process of its own as its model."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.demo.endpoint import offline_endpoint
from orchestrator.settings import Secret, Settings

if TYPE_CHECKING:
    from actors.launch import Cluster
    from actors.local_ray import RayConnection

SCENARIO = Path(__file__).parent / "front_desk.yaml"


@pytest.fixture(scope="module")
def state_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the front desk keeps its journal."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def front_desk(
    _ray_connection: RayConnection, tmp_path_factory: pytest.TempPathFactory, state_directory: Path
) -> Iterator[Cluster]:
    """Three seats, and a door that is full when they are taken."""
    from actors.launch import launch

    log = tmp_path_factory.mktemp("endpoint") / "endpoint.log"
    with offline_endpoint(str(SCENARIO), log) as url:
        settings = Settings(
            agent="tests.agents.tools:agent",
            namespace=f"test-{uuid.uuid4().hex[:12]}",
            port=0,
            model_url=url,
            model_api_key=Secret("sk-offline"),
            session_actors=3,
            tool_actors=2,
            max_sessions=3,
            request_head_timeout=1.0,
            state_directory=str(state_directory),
        )
        cluster = launch(settings)
        yield cluster
        cluster.shutdown()
