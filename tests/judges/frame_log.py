"""The frames of every offline endpoint of a run, judged as they come in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.judges.frame_judge import FrameJudge

__all__ = ["FrameLog"]


class FrameLog:
    """Reads the file that endpoints write their frames to. They add whole lines only, so nothing is seen by halves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames = 0
        self._read = 0
        self._judge: FrameJudge | None = None

    def judge(self) -> None:
        """Judge what came since the last time. Raises AssertionError with each wrong frame and what is wrong with it."""
        new = self._new_lines()
        if not new:
            return
        if self._judge is None:
            # Not imported before it is needed: the official types take a second, and most tests start no endpoint.
            from tests.judges.frame_judge import FrameJudge

            self._judge = FrameJudge()
        self.frames += len(new)
        wrong = [f"{complaint}\n  in {frame.decode()}" for frame in new if (complaint := self._judge.complaint(frame))]
        assert not wrong, f"{len(wrong)} of {len(new)} frames are not the API's; the first ones:\n" + "\n".join(wrong[:5])

    def _new_lines(self) -> list[bytes]:
        try:
            if self.path.stat().st_size == self._read:
                return []
        except FileNotFoundError:
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        self._read += len(new)
        return new.splitlines()
