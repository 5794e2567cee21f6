"""What holds for the whole suite: frames of offline endpoints are judged; Ray is real where asked for, and nowhere else."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from orchestrator.simulator.frame_record import RECORD_VARIABLE
from tests.judges.frame_log import FrameLog

if TYPE_CHECKING:
    from actors.local_ray import RayConnection

# Generated examples are the same in every run, and bounded in number and not in time: a busy machine must not fail a test.
# `make fuzz` looks for new ones.
settings.register_profile("test", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))


@pytest.fixture(scope="session")
def frame_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrameLog]:
    """Where all endpoints write their frames: those of this process, and those of the processes that it starts."""
    log = FrameLog(tmp_path_factory.mktemp("frames") / "frames.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RECORD_VARIABLE, str(log.path))
        yield log
    # What came after the last test, from endpoints that outlived it.
    log.judge()


@pytest.fixture(autouse=True)
def _frames_are_those_of_the_api(frame_log: FrameLog) -> Iterator[None]:
    # Set up before the other fixtures of a test, so it judges after their endpoints are gone.
    yield
    frame_log.judge()


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where services keep their journals unless told otherwise: never in the home of whoever runs the tests."""
    home = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        # Before Ray starts, whose processes inherit it.
        patch.setenv("XDG_STATE_HOME", str(home))
        yield home


def _refuse(*_arguments: Any, **_options: Any) -> NoReturn:
    pytest.fail("a test without the cluster marker started Ray: mark it, or test the part that needs none")


@pytest.fixture(autouse=True)
def _no_ray_in_unit_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.node.get_closest_marker("cluster") is not None:
        yield
        return
    # Not imported here: most unit tests never need it, and it takes half a second.
    ray = sys.modules.get("ray")
    connected_before = ray is not None and ray.is_initialized()
    if ray is not None:
        monkeypatch.setattr(ray, "init", _refuse)
    yield
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized() and not connected_before:
        ray.shutdown()
        _refuse()


@pytest.fixture(scope="session")
def _ray_connection(state_home: Path) -> Iterator[RayConnection]:
    from actors.local_ray import start_ray

    assert state_home.exists()
    # More than the machine may have: the actors ask for no CPU, and Ray starts this many workers ahead.
    connection = start_ray(cpus=2)
    yield connection
    connection.stop()


@pytest.fixture
def ray_cluster(request: pytest.FixtureRequest) -> RayConnection:
    """Real Ray on loopback, started by the first test that needs it. Only for tests marked `cluster`."""
    if request.node.get_closest_marker("cluster") is None:
        pytest.fail("a test that uses ray_cluster must be marked cluster")
    connection: RayConnection = request.getfixturevalue("_ray_connection")
    return connection


@pytest.fixture
def namespace(ray_cluster: RayConnection) -> Iterator[str]:
    """A namespace of this test's own; whatever actors it still holds in the end are removed."""
    from actors import _options

    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    # The supervisor first, or it would start the others again.
    for actor in sorted(_options.existing_names(name), key=lambda actor: actor != _options.SUPERVISOR):
        _options.remove(name, actor)
