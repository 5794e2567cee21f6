"""The names of a journal's writers: where an owner lives, so that people who look at a call know which process to look at."""

from __future__ import annotations

import re

import msgspec

__all__ = ["WriterName"]

# No process has a number of more digits; without leading zeros, so that a name comes back as it was.
_FORM = re.compile(r"([^/]*)/(.*)/(0|[1-9][0-9]{0,9})", re.DOTALL)


class WriterName(msgspec.Struct, frozen=True):
    """A process that owns calls, written "<node>/<actor name>/<pid>". There is no slash in `node`.

    The pid tells an actor from the one that had its name before it. It is None where a text was no such name.
    """

    node: str
    actor: str
    pid: int | None

    def __str__(self) -> str:
        return self.actor if self.pid is None else f"{self.node}/{self.actor}/{self.pid}"

    @classmethod
    def parse(cls, text: str) -> WriterName:
        """Read a writer's name. Any text is one: what has another form is taken whole, as the name of the actor."""
        found = _FORM.fullmatch(text)
        return cls("", text, None) if found is None else cls(found[1], found[2], int(found[3]))
