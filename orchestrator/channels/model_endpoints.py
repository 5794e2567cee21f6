"""From settings to the pool of model endpoints that the calls of a process share."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote, urlsplit

from orchestrator.core.endpoint_pool import CircuitState, Endpoint, EndpointPool
from orchestrator.core.renewal import RenewalOptions
from orchestrator.realtime.renewing import ModelRenewal, Target
from orchestrator.settings import ModelEndpoint, Settings
from orchestrator.telemetry import names
from orchestrator.telemetry.metrics import Metrics

__all__ = ["model_renewal"]

AZURE_PATH = "/openai/v1/realtime"
_HEALTH = {CircuitState.CLOSED: 1.0, CircuitState.HALF_OPEN: 0.5, CircuitState.OPEN: 0.0}


def model_renewal(settings: Settings, metrics: Metrics) -> ModelRenewal:
    """Return how the models of a process are connected and renewed; make one per process, since health is shared."""
    endpoints = settings.endpoints
    pool = EndpointPool(
        [Endpoint(found.name, found.priority, found.weight, found.max_sessions) for found in endpoints],
        random.random,
        lambda name, state: metrics.set(names.MODEL_ENDPOINT_HEALTH, _HEALTH[state], endpoint=name),
    )
    options = RenewalOptions(
        timeout=settings.renew_timeout,
        attempt=settings.model_open_timeout,
        renew_after=settings.model_renew_after,
        max_age=settings.model_max_age,
    )
    return ModelRenewal(pool, {found.name: _target(found, settings) for found in endpoints}, options)


def _target(endpoint: ModelEndpoint, settings: Settings) -> Target:
    model = endpoint.model or settings.model_name
    key = endpoint.key.reveal()
    if endpoint.kind == "azure":
        path = "" if urlsplit(endpoint.url).path.strip("/") else AZURE_PATH
        return Target(f"{endpoint.url.rstrip('/')}{path}?model={quote(model)}", _always({"api-key": key}), model)
    return Target(f"{endpoint.url}?model={quote(model)}", _always({"Authorization": f"Bearer {key}"}), model)


def _always(headers: Mapping[str, str]) -> Callable[[], Awaitable[Mapping[str, str]]]:
    async def give() -> Mapping[str, str]:
        return headers

    return give
