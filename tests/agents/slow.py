"""An agent that takes long to import, but only in an actor. Its tests give up on it long before."""

from __future__ import annotations

import sys
import time

from tests.agents.tools import agent

__all__ = ["agent"]

if "pytest" not in sys.modules:
    time.sleep(60)
