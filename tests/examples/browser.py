"""The web example as its user has it: the server in a process of its own, and Debian's Chromium in front of it."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import Page, async_playwright

from orchestrator.simulator.audio import PCM_RATE, resample
from orchestrator.simulator.speech import SpeechRequest, synthesize
from tests.examples import stranger

MICROPHONE_RATE = 48_000
NAMES = ("chromium", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # It does not run as root with one, and it opens only our own page.
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
# A machine whose other core is busy is slow; the test's own timeout is the limit.
PATIENCE_MS = 60_000


class Website:
    """`python -m examples.web --offline`, started."""

    def __init__(self, process: subprocess.Popen[str], origin: str) -> None:
        self.process = process
        self.origin = origin

    @property
    def port(self) -> int:
        return int(self.origin.rpartition(":")[2])

    def end(self) -> tuple[int, str, str]:
        """End it as Ctrl-C does; return its status, output and errors."""
        self.process.send_signal(signal.SIGINT)
        return stranger.finish(self.process)


@contextmanager
def website(port: int = 0, *words: str) -> Iterator[Website]:
    """Run the example; it has ended when the block has."""
    process = stranger.start("examples.web", "--offline", "--port", str(port), *words)
    try:
        assert process.stdout is not None
        found = next(filter(None, (re.match(r"Open (\S+) in a browser", line) for line in process.stdout)), None)
        if found is None:
            pytest.fail(f"the example did not start: {stranger.finish(process)}")
        yield Website(process, found[1])
    finally:
        if process.poll() is None:
            process.kill()
            stranger.finish(process)


def chromium() -> str:
    """Return the path of the browser."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail("the web example is tested in Chromium, which is not installed: run `make browser`")
    return found


def recording(path: Path, *pieces: str | float) -> Path:
    """Write what the microphone shall hear: texts to be spoken, and seconds of silence."""
    sounds = [
        np.zeros(round(piece * PCM_RATE), np.int16)
        if isinstance(piece, float)
        else np.frombuffer(synthesize(SpeechRequest(piece, voice="sage")).audio, "<i2")
        for piece in pieces
    ]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(MICROPHONE_RATE)
        file.writeframes(resample(np.concatenate(sounds), PCM_RATE, MICROPHONE_RATE).astype("<i2").tobytes())
    return path


@asynccontextmanager
async def browser_page(profile: Path, microphone: Path, *, excused: str = "$^") -> AsyncIterator[Page]:
    """Yield a page of a new browser whose microphone hears the recording once, then silence.

    Whatever the page reports as an error fails the test: a broken script, a file that is missing, what its own security policy
    forbids; except what the pattern `excused` fits.
    """
    faults: list[str] = []
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            profile,
            executable_path=chromium(),
            headless=False,  # Chromium's own new headless mode, by its flag: Playwright's is another program.
            args=[*FLAGS, f"--use-file-for-fake-audio-capture={microphone}%noloop"],
            viewport={"width": 1280, "height": 820},
        )
        try:
            context.set_default_timeout(PATIENCE_MS)
            page = context.pages[0]
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
            yield page
        finally:
            await context.close()
    assert [fault for fault in faults if not re.search(excused, fault)] == []
