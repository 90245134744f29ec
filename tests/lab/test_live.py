"""``proact lab serve``: who may ask, what is refused, one run at a time, and that nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import chromium

from proact.cli.app import dispatch
from proact.cli.error import CommandError
from proact.lab.asked import AskedError
from proact.lab.live.form import DEFAULTS, settings_from_json, settings_of, settings_to_json
from proact.lab.live.runs import Runs

Children = Callable[[int], dict[str, int]]

FORM = {**DEFAULTS, "models": "epoll,threads", "workloads": "echo"}
QUICK = {**FORM, "connections": "2", "duration": "0.5"}


class Served:
    """A server of its own, and what a browser would send it."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "proact", "lab", "serve"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.fullmatch(r"proact: (http://127\.0\.0\.1:(\d+)/) \(Ctrl-C stops\)\n", line)
        assert found is not None, line
        self.url, self.port = found[1], int(found[2])
        self.host = f"127.0.0.1:{self.port}"
        page = self.ask("GET", "/")[1]
        self.token = re.search(r'name="token" content="([^"]+)"', page)[1]  # type: ignore[index]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Status and text of the answer; underscores in the names of headers are hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body if body is None else json.dumps(body), named)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def post(self, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        return self.ask("POST", path, body, **{"X_Proact_Token": self.token, **headers})

    def raw(self, data: bytes) -> bytes:
        """All that comes back for some bytes, until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
            client.sendall(data)
            return b"".join(iter(lambda: client.recv(65536), b""))

    def events(self, last: str = "", after: str | None = None) -> Iterator[dict[str, Any]]:
        """The events of the run, until one is named ``last``."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", "/events", headers={} if after is None else {"Last-Event-ID": after})
            answer = connection.getresponse()
            assert answer.getheader("Content-Type") == "text/event-stream"
            for line in iter(answer.readline, b""):
                if line.startswith(b"data: "):
                    yield (event := json.loads(line.removeprefix(b"data: ")))
                    if event["event"] == last:
                        return
        finally:
            connection.close()

    def children(self) -> list[int]:
        """The measuring processes that have not ended."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue  # it has just ended
            if b"proact.lab.live.child" in words and str(self.process.pid).encode() in words:
                found.append(int(path.parent.name))
        return found

    def close(self, blow: signal.Signals = signal.SIGINT) -> str:
        """End it; what it has said on stderr."""
        self.process.send_signal(blow)
        out, said = self.process.communicate(timeout=20)
        assert out == ""
        return said


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    try:
        yield served
    finally:
        if served.process.poll() is None:
            assert served.close() == "proact: stopped\n"
            assert served.process.returncode == 0
        assert served.children() == []


def test_only_our_own_page_may_ask(served: Served) -> None:
    assert served.ask("GET", "/", Host=f"localhost:{served.port}")[0] == 200
    for host in ("evil.example", f"evil.example:{served.port}", "127.0.0.1.evil.example", "", "10.0.0.1"):
        assert served.ask("GET", "/", Host=host)[0] == 421, host
    assert (
        served.raw(b"GET / HTTP/1.1\r\nHost: a\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")[:12]
        == b"HTTP/1.1 421"
    )
    for path in ("/start", "/stop"):
        assert served.ask("POST", path, FORM)[0] == 403
        assert served.ask("POST", path, FORM, X_Proact_Token="guessed")[0] == 403
        assert served.post(path, FORM, Origin="http://evil.example")[0] == 403
        assert served.post(path, FORM, Origin="null")[0] == 403
    assert served.ask("PUT", "/start")[0] == 405
    assert served.ask("GET", "/start")[0] == 404
    assert served.ask("GET", "/../../etc/passwd")[0] == 404
    assert served.ask("GET", "/report") == (404, "no run has come to its end yet\n")
    assert served.ask("GET", "/results.json")[0] == 404
    assert served.post("/stop") == (409, "no run is going on\n")
    assert served.children() == []


def test_what_is_no_request_ends_the_connection_and_no_more(served: Served) -> None:
    assert served.raw(b"\x16\x03\x01 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    head = f"POST /start HTTP/1.1\r\nHost: {served.host}\r\n".encode()
    assert served.raw(head + b"Content-Length: 70000\r\n\r\n" + b"x" * 70000).startswith(b"HTTP/1.1 413 ")
    two = f"GET /style.css HTTP/1.1\r\nHost: {served.host}\r\n".encode()
    assert served.raw(two + b"\r\n" + two + b"Connection: close\r\n\r\n").count(b"HTTP/1.1 200 OK") == 2
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(head)  # and goes without a word
    assert served.ask("GET", "/")[0] == 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": "epoll,kqueue"}, "unknown model 'kqueue': choose from blocking, threads, "),
        ({"models": ""}, "unknown model ''"),
        ({"workloads": "tea"}, "unknown workload 'tea': choose from echo, web, mixed"),
        ({"connections": "0"}, "connections has '0': it takes whole numbers from 1 to "),
        ({"connections": "1" * 5000}, "connections has '111"),
        ({"connections": "900000"}, "900000 connections need "),
        ({"size": "17M"}, "size has '17M'"),
        ({"duration": "x"}, "duration is 'x': it takes a number of seconds"),
        ({"duration": "nan"}, "duration is nan: it must be from 0.01 to 3600 seconds"),
        ({"repeat": "1,2"}, "repeat takes one number"),
        ({"repeat": 3}, "repeat is missing, or no text"),
        ({"more": "x"}, "unknown field 'more'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_form_that_asks_wrongly(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AskedError) as caught:
        settings_of({**FORM, **change})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_settings_arrive_as_they_were_sent() -> None:
    settings = settings_of({**FORM, "connections": "1,10", "size": "1K"})
    assert (settings.models, settings.sizes, settings.split) == (("epoll", "threads"), (1024,), True)
    assert settings_from_json(settings_to_json(settings)) == settings


def test_a_run_from_its_start_to_its_report(served: Served, lab_children: Children) -> None:
    assert served.post("/start", {**QUICK, "models": "kqueue"})[0] == 400
    assert served.post("/start", [])[:2] == (400, "the form is no object\n")
    assert served.post("/start", QUICK) == (202, "started\n")
    assert served.post("/start", QUICK) == (409, "a run is going on: stop it, or wait for its end\n")
    events = list(served.events("ended"))
    assert [each["event"] for each in events[:3]] == ["begun", "planned", "started"]
    assert events[1]["cells"] == 2
    finished = [each for each in events if each["event"] == "finished"]
    assert {each["model"] for each in finished} == {"epoll", "threads"}
    for each in finished:
        assert each["status"] == "ok"
        assert each["rate"] > 0 < each["p50"] <= each["p99"]
    assert events[-1] == {"event": "ended", "how": "done", "reason": None}
    # Who comes late is told all of it, who comes back what he has missed.
    assert list(served.events("ended")) == events
    assert list(served.events("ended", after=f"1.{len(events) - 2}")) == events[-1:]
    assert list(served.events("ended", after="1.x")) == events
    document = json.loads(served.ask("GET", "/results.json")[1])
    assert len(document["cells"]) == 2
    assert "When each wins" in served.ask("GET", "/report")[1]
    assert served.post("/stop")[0] == 409
    assert served.children() == []


def test_a_run_is_stopped_and_another_begins(served: Served, lab_children: Children) -> None:
    assert served.post("/start", {**FORM, "duration": "600"})[0] == 202
    next(each for each in served.events("started") if each["event"] == "started")
    (child,) = served.children()
    wait(lambda: len(lab_children(child)) == 2)
    assert served.post("/stop") == (200, "stopped\n")
    assert served.children() == []
    assert lab_children(child) == {}
    assert list(served.events("ended"))[-1]["how"] == "stopped"
    assert served.ask("GET", "/report")[0] == 404
    assert served.post("/start", {**QUICK, "models": "epoll"})[0] == 202
    assert list(served.events("ended"))[-1]["how"] == "done"


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_when_the_server_ends_so_does_the_run(
    blow: signal.Signals, served: Served, lab_children: Children
) -> None:
    served.post("/start", {**FORM, "duration": "600"})
    watching = served.events("nothing")
    assert next(watching)["event"] == "begun"
    wait(lambda: served.children() and len(lab_children(served.children()[0])) == 2)
    (child,) = served.children()
    said = served.close(blow)
    assert said == ("" if blow == signal.SIGKILL else "proact: stopped\n")
    wait(lambda: not served.children() and not lab_children(child))
    assert [each["event"] for each in watching][-1] in ("started", "ended")  # the stream has ended as well


def test_a_run_that_breaks_says_so(served: Served) -> None:
    served.post("/start", {**FORM, "duration": "600"})
    wait(lambda: served.children())
    (child,) = served.children()
    subprocess.run(["kill", "-KILL", str(child)], check=True)
    ended = list(served.events("ended"))[-1]
    assert (ended["how"], ended["reason"]) == ("failed", "the measuring process ended with -9")


async def test_a_child_that_does_not_speak_json_ends_the_run(
    loop: asyncio.AbstractEventLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child"
    child.write_text("#!/bin/sh\necho nonsense\nexec sleep 600\n")
    child.chmod(0o755)
    monkeypatch.setattr("proact.lab.live.runs.sys.executable", str(child))
    runs = Runs()
    await runs.start(settings_of(FORM))
    async with contextlib.aclosing(runs.events(None)) as events:
        assert '"begun"' in await anext(events)
        ended = await anext(events)
    assert "failed" in ended
    assert "the measuring process does not speak JSON: Expecting value" in ended
    assert not runs.going_on
    await runs.stop()


def wait(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "Invalid value for '--port'"),
        (["--host", "203.0.113.1"], "can't listen on 203.0.113.1 port 0: "),
        (["--host", "no.such.host.invalid"], "can't listen on no.such.host.invalid port 0: "),
    ],
    ids=["port", "address", "name"],
)
def test_where_it_cannot_listen(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError) as caught:
        dispatch(["lab", "serve", *arguments])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_in_a_browser_a_click_starts_and_another_stops(served: Served, browser: chromium.Browser) -> None:
    page = browser.open(served.url, width=360, height=760)
    click = "document.getElementById('{}').click()".format
    page.run(click("none"))
    page.run(click("start"))
    page.until("document.getElementById('problem').textContent.includes('unknown model')")
    noted = page.errors()
    assert len(noted) == 1
    assert "400 (Bad Request)" in noted[0]  # the browser's own note of that
    page.run("document.querySelector('[value=epoll]').click()")
    page.run("form.elements.connections.value = '2'; form.elements.duration.value = '0.2'")
    page.run(click("start"))
    page.until("document.querySelectorAll('#cells tr').length === 1")
    page.until("document.getElementById('chart').data?.[0].x[0] > 0")
    page.until("!document.getElementById('links').hidden")
    assert page.run("document.getElementById('state').textContent") == "Done."
    assert page.run("document.querySelectorAll('#cells .number').length") == 4
    assert page.run("document.documentElement.scrollWidth") == 360
    page.run("form.elements.duration.value = '600'")
    page.run(click("start"))
    page.until("document.getElementById('state').textContent.startsWith('1 of 1') && !stop.disabled")
    page.run(click("stop"))
    page.until("document.getElementById('state').textContent === 'Stopped.'")
    assert served.children() == []
    assert page.run("document.querySelectorAll('#cells tr').length") == 0
    page.run("location.assign('/report')")  # of the run that came to its end
    page.until("document.querySelector('.chart')?.data?.length > 0")
    assert {url.startswith(served.url) for url in page.requests()} == {True}
    assert page.errors() == noted
    page.close()
