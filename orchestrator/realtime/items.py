"""The items of the history, under the guide's module name."""

from orchestrator.core.items import *  # noqa: F403 - the list is kept in one place
from orchestrator.core.items import __all__ as __all__
