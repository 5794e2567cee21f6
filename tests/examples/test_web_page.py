"""The web example's page in a real browser: a voice at its microphone, a hand on its buttons."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.examples.browser import PATIENCE_MS, Website, browser_page, recording, website

# Audio plays at its own speed, on however busy a machine.
pytestmark = pytest.mark.timeout(300)
expect.set_options(timeout=PATIENCE_MS)

HELLO = "Hello, what can you do for me?"
BICYCLE = "Can I take my bicycle with me?"
BOOKING = "Please book seat 12A under number 4711."
BOOKED = "Seat 12A is booked under number 4711."
LOUD = re.compile(r"0\.[1-9]\d*|1")
CUT = re.compile(r"after ([\d.]+) s of ([\d.]+) s")


def picture(path: Path, side: int = 1600) -> Path:
    """Write a picture that is larger than the page may send."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((row * 255 // side, 120, 200)) * side for row in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


async def played(page: Page) -> tuple[float, float]:
    """Return how many seconds the page has played, and how loud the loudest sample was."""
    text = await page.text_content("#fact-played") or ""
    seconds, _, peak = text.partition(" s, peak ")
    return float(seconds.removesuffix(" s")), float(peak or 0)


async def type_words(page: Page, text: str) -> None:
    await page.fill("#text", text)
    await page.press("#text", "Enter")


async def faults_for_people(page: Page) -> list[object]:
    """Return what a screen reader cannot name, and what eyes can hardly read."""
    nameless: list[object] = await page.evaluate(NAMELESS)
    unreadable: list[object] = await page.evaluate(UNREADABLE)
    return nameless + unreadable


@pytest.fixture(scope="module")
def site() -> Iterator[Website]:
    with website() as found:
        yield found


async def test_a_spoken_conversation_with_an_interruption(site: Website, tmp_path: Path) -> None:
    # The second sentence falls into the first answer, which takes twenty seconds.
    microphone = recording(tmp_path / "microphone.wav", 0.5, HELLO, 5.0, BICYCLE)
    async with browser_page(tmp_path / "profile", microphone) as page:
        await page.emulate_media(color_scheme="light", reduced_motion="reduce")
        await page.goto(site.origin)
        assert await faults_for_people(page) == []
        await page.click("#start")
        await expect(page.locator("#status")).to_have_text("Connected")
        await expect(page.locator("#fact-loudspeaker")).to_have_text("running")
        users, answers = page.locator(".message.user .bubble p"), page.locator(".message.assistant")
        await expect(users.nth(0)).to_have_text(HELLO)
        # The words come while they are spoken.
        await expect(page.locator("#agent-state")).to_have_text("Speaking")
        await expect(answers.nth(0)).to_contain_text("Good evening")

        # The user speaks: the agent stops, and remembers what was really heard.
        await expect(page.locator("#fact-cut")).to_have_text(CUT)
        found = CUT.fullmatch(await page.text_content("#fact-cut") or "")
        assert found is not None
        heard, sent = map(float, found.groups())
        seconds, peak = await played(page)
        assert 0 < heard < sent
        assert heard <= seconds + 0.1
        assert peak > 0.1
        await expect(answers.nth(0)).to_contain_text("interrupted after")
        await expect(answers.nth(0)).not_to_contain_text("interrupt me")

        await expect(users.nth(1)).to_have_text(BICYCLE)
        await expect(page.locator(".note.handoff")).to_have_text(["Reception → Travel guide", "Travel guide → Reception"])
        await expect(page.locator(".call")).to_contain_text("coach nine")
        await expect(answers.last).to_contain_text("Anything else?")
        assert (await played(page))[0] > seconds
        assert await faults_for_people(page) == []

        await page.click("#end")
        await expect(page.locator("#status")).to_have_text("Conversation ended")
        await expect(page.locator("#start")).to_be_visible()


async def test_a_typed_conversation_with_approvals_a_picture_and_the_interrupt_button(site: Website, tmp_path: Path) -> None:
    async with browser_page(tmp_path / "profile", recording(tmp_path / "silence.wav", 0.1)) as page:
        await page.emulate_media(color_scheme="dark", reduced_motion="reduce")
        await page.goto(site.origin)
        # A suggestion begins the conversation, without a microphone.
        await page.click(".hint:has-text('book seat')")
        dialog, answers = page.locator("#approval"), page.locator(".message.assistant")
        await expect(dialog).to_be_visible()
        await expect(page.locator("#approval-title")).to_have_text("Seats wants to run book_seat")
        await expect(page.locator("#approval-arguments dd")).to_have_text(["4711", "12A"])
        assert await faults_for_people(page) == []
        # Neither a key meant for something else nor Esc decides.
        await page.keyboard.press("Enter")
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_visible()
        await page.click("#approval button[value=reject]")
        await expect(page.locator(".call .state")).to_have_text("not done")
        await expect(answers.last).to_contain_text("Anything else?")

        await type_words(page, BOOKING)
        await expect(dialog).to_be_visible()
        await page.check("#approval-always")
        await page.click("#approval button[value=approve]")
        await expect(page.locator(".call").nth(1)).to_contain_text(BOOKED)
        await expect(answers.last).to_contain_text("Anything else?")
        await expect(dialog).to_be_hidden()

        await page.set_input_files("#picture-file", picture(tmp_path / "picture.png"))
        await expect(page.locator("#preview")).to_be_visible()
        size = await page.locator("#preview-image").evaluate("image => image.decode().then(() => image.naturalWidth)")
        assert size == 1024
        await page.fill("#preview-text", "What do you see in this picture?")
        await page.click("#preview button[value=send]")
        shown = page.locator(".message.user").last
        await expect(shown.locator("img")).to_be_visible()
        await expect(shown).to_contain_text("What do you see in this picture?")
        await expect(answers.last).to_contain_text("I have your picture")

        await type_words(page, HELLO)
        await expect(answers.last).to_contain_text("Good evening")
        await page.click("#interrupt")
        await expect(answers.last).to_contain_text(re.compile("interrupted after|not heard"))
        await expect(page.locator("#agent-state")).to_have_text("Your turn")

        await type_words(page, "Is it certain that we arrive on time?")
        await expect(page.locator(".note.guardrail")).to_have_text("Stopped by no_guarantees")
        await expect(answers.last).to_contain_text("I cannot promise that")
        assert await faults_for_people(page) == []
        assert await page.locator(".notices p").count() == 0


async def test_push_to_talk_mute_and_a_server_that_goes_and_comes_back(tmp_path: Path) -> None:
    # It speaks for a minute, so that whenever the button is held, there is something to hear.
    pieces: list[str | float] = [HELLO, 0.05]
    microphone = recording(tmp_path / "microphone.wav", *pieces * 25)
    async with browser_page(tmp_path / "profile", microphone, excused="^WebSocket connection to .* failed") as page:
        with website() as site:
            await page.goto(site.origin)
            await page.check("input[value=manual]")
            await page.click("#start")
            hold, users = page.locator("#hold"), page.locator(".message.user .bubble p")
            await expect(hold).to_be_visible()
            await hold.focus()
            await page.keyboard.down("Space")
            await expect(page.locator("#agent-state")).to_have_text("Listening")
            await expect(page.locator("#level")).to_have_attribute("value", LOUD)
            await expect(hold).to_have_text(re.compile(r"^Release to send [1-9]\d*\.\d s$"))
            await page.keyboard.up("Space")
            await expect(users).to_have_text([HELLO])
            await expect(page.locator("#agent-state")).to_have_text("Speaking")

            await page.click("#mute")
            await expect(page.locator("#mute")).to_have_attribute("aria-pressed", "true")
            await hold.focus()
            await page.keyboard.down("Space")
            await expect(page.locator("#fact-cut")).to_have_text(CUT)
            await expect(page.locator("#level")).to_have_attribute("value", "0")
            await page.keyboard.up("Space")
            await page.click("#mute")
            site.end()
        await expect(page.locator("#status")).to_contain_text("Connection lost")
        with website(site.port):
            # The page may have come back by itself; then the button does nothing.
            await page.evaluate("document.getElementById('retry').click()")
            await expect(page.locator("#status")).to_have_text("Connected")
            await expect(page.locator(".note.divider")).to_have_text("New conversation")
            await type_words(page, "Thank you")
            await expect(page.locator(".message.assistant").last).to_contain_text("You are welcome.")


# Controls that a screen reader could not name.
NAMELESS = """() => [...document.querySelectorAll("button, input:not([hidden])")]
    .filter((control) => !(control.getAttribute("aria-label") || control.textContent.trim() || control.labels?.length))
    .map((control) => control.outerHTML)"""
# Texts on their ground with less contrast than 4.5 to 1, the least that WCAG asks for.
UNREADABLE = """() => {
    const brush = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
    const solid = (colours) => {
        brush.clearRect(0, 0, 1, 1);
        for (const colour of colours) {
            brush.fillStyle = colour;
            brush.fillRect(0, 0, 1, 1);
        }
        return brush.getImageData(0, 0, 1, 1).data;
    };
    const light = ([red, green, blue]) => {
        const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        const [r, g, b] = [red, green, blue].map((value) => linear(value / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const grounds = (element) =>
        element ? [...grounds(element.parentElement), getComputedStyle(element).backgroundColor] : ["#fff"];
    const contrast = (element) => {
        const ground = grounds(element);
        const [a, b] = [light(solid(ground)), light(solid([...ground, getComputedStyle(element).color]))];
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    };
    return [...document.querySelectorAll("body *")]
        .filter((element) => element.checkVisibility() && !element.matches(":disabled, noscript, noscript *"))
        .filter((element) => [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()))
        .map((element) => [element.textContent.trim().slice(0, 40), contrast(element)])
        .filter(([, value]) => value < 4.5);
}"""
