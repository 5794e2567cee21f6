"""Every frame that a simulator sends in these tests is judged by the official types when the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from orchestrator.simulator.endpoint.session_machine import ModelOptions
from orchestrator.simulator.scenario import Scenario
from orchestrator.simulator.speech import Speaker
from tests.simulator.support import SCENARIO, Driver, Recorder


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    frames = Recorder()
    yield frames
    frames.judge()


@pytest.fixture
def driver(recorder: Recorder) -> Driver:
    """A fresh session of the scenario in `support`."""
    return Driver(recorder)


@pytest.fixture
def drive(recorder: Recorder) -> Callable[..., Driver]:
    """Makes a session with a scenario and options of the test's own."""

    def make(scenario: Scenario = SCENARIO, options: ModelOptions | None = None, **more: object) -> Driver:
        return Driver(recorder, scenario, options, **more)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def speaker() -> Speaker:
    """One for all tests, so that a text is rendered once."""
    return Speaker()
