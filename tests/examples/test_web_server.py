"""The web example's server: the one command, the page's files, and who is kept out."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from examples.web.guard import LOOPBACK, refusal
from examples.web.pictures import MAX_PICTURES, Uploads
from examples.web.protocol import BadMessage
from examples.web.server import STATIC
from tests.examples import stranger
from tests.examples.browser import Website, website
from tests.examples.test_web import PIXEL

SECRET = "sk-secret-of-the-owner"


@pytest.fixture(scope="module")
def site() -> Iterator[Website]:
    with website() as found:
        yield found


def get(site: Website, path: str, **headers: str) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection("127.0.0.1", site.port)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def test_one_command_serves_the_page_and_ctrl_c_ends_it() -> None:
    with website() as site:
        assert site.origin.startswith("http://127.0.0.1:")
        response, body = get(site, "/")
        assert (response.status, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert body == (STATIC / "index.html").read_bytes()
        with connect(f"ws://127.0.0.1:{site.port}/ws/one"):
            status, _, errors = site.end()
        assert (status, errors) == (130, "")


def test_every_file_that_the_page_names_is_there(site: Website) -> None:
    named = {"worklets/capture.js", "worklets/playback.js", "favicon.svg"}
    for file in ("index.html", *(path.name for path in STATIC.glob("*.js"))):
        named |= set(re.findall(r'(?:src="|href="|from "\./|addModule\(")([\w./]+)"', (STATIC / file).read_text()))
    assert {"app.js", "style.css", "player.js", "microphone.js"} <= named
    for name in named:
        response, _ = get(site, f"/{name}")
        assert response.status == 200, name


def test_the_page_names_no_address_and_needs_nothing_from_elsewhere() -> None:
    for path in STATIC.rglob("*.*"):
        addresses = re.findall(r"\b(?:https?|wss?)://[^\s\"']+", path.read_text())
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, path.name


def test_every_answer_carries_the_policy(site: Website) -> None:
    for path in ("/", "/app.js", "/nowhere"):
        response, _ = get(site, path)
        assert "default-src 'none'; script-src 'self'" in response.headers["Content-Security-Policy"]
        assert "unsafe" not in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert get(site, "/nowhere")[0].status == 404
    assert get(site, "/..%2fagents.py")[0].status == 404


def test_strangers_are_kept_out(site: Website) -> None:
    assert get(site, "/", Host=f"evil.example:{site.port}")[0].status == 403
    assert get(site, "/", Host="")[0].status == 403
    url = f"ws://127.0.0.1:{site.port}/ws/stranger"
    for origin in ("http://evil.example", "null", "http://[::1", f"http://127.0.0.1:{site.port + 1}", "http://127.0.0.1"):
        with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers={"Origin": origin}):
            pass
        assert refused.value.response.status_code == 403
    # A page that has let its own name point here is of the same origin as it asks, and yet a stranger.
    rebound = f"evil.example:{site.port}"
    with (
        socket.create_connection(("127.0.0.1", site.port)) as connection,
        pytest.raises(InvalidStatus) as refused,
        connect(f"ws://{rebound}/ws/stranger", sock=connection, additional_headers={"Origin": f"http://{rebound}"}),
    ):
        pass
    assert refused.value.response.status_code == 403
    with connect(url, additional_headers={"Origin": site.origin}) as own:
        assert own.recv()


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        ("localhost:8000", "http://localhost:8000", True),
        ("LOCALHOST:8000", "http://localhost:8000", True),
        ("[::1]:8000", "http://[::1]:8000", True),
        ("127.0.0.1", None, True),
        ("localhost:8000", "http://localhost:8001", False),
        ("localhost.evil.example", None, False),
        ("evil.example@localhost", "http://evil.example@localhost.evil", False),
        ("[::1", None, False),
        ("", None, False),
        (None, None, False),
        ("localhost", "", False),
    ],
)
def test_who_may_ask(host: str | None, origin: str | None, allowed: bool) -> None:
    assert (refusal(host, origin, LOOPBACK) is None) is allowed


def test_the_key_never_leaves_the_server() -> None:
    process = stranger.start("examples.web", "--port", "0", env=stranger.environment(OPENAI_API_KEY=SECRET))
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline(), process.stdout.readline()]
        assert "OpenAI Realtime API" in lines[0]
        found = re.search(r"Open (http://127\.0\.0\.1:\d+)", "".join(lines))
        assert found is not None
        site = Website(process, found[1])
        bodies = [get(site, f"/{path.relative_to(STATIC).as_posix()}")[1] for path in STATIC.rglob("*.*")]
        assert SECRET.encode() not in b"".join(bodies)
        status, output, errors = site.end()
        assert (status, errors) == (130, "")
        assert SECRET not in output
    finally:
        if process.poll() is None:
            process.kill()
            stranger.finish(process)


def test_what_it_cannot_do_it_explains(site: Website) -> None:
    status, _, errors = stranger.run("examples.web", "--offline", "--port", str(site.port))
    assert status == 2
    assert "--port" in errors
    assert "Traceback" not in errors
    status, _, errors = stranger.run("examples.web")
    assert status == 2
    assert "--offline" in errors


def test_a_conversation_holds_so_many_images() -> None:
    uploads = Uploads()
    for _ in range(MAX_PICTURES):
        assert uploads.whole(PIXEL, None).data_url == PIXEL
    for one_more in (lambda: uploads.whole(PIXEL, None), lambda: uploads.start("one", None)):
        with pytest.raises(BadMessage, match="images"):
            one_more()


def test_an_image_that_is_started_anew_forgets_what_came_before() -> None:
    uploads = Uploads()
    uploads.start("one", "Look!")
    assert uploads.chunk("one", "rubbish") == 1
    uploads.start("one", None)
    # What is empty takes no room, however often it comes.
    assert [uploads.chunk("one", "") for _ in range(3)] == [0, 0, 0]
    assert uploads.chunk("one", PIXEL) == 1
    assert uploads.end("one").text == "Please describe this image."
    with pytest.raises(BadMessage):
        uploads.end("one")
