"""The inputs of a model, under the guide's module name."""

from orchestrator.core.inputs import *  # noqa: F403 - the list is kept in one place
from orchestrator.core.inputs import __all__ as __all__
