"""``proact lab serve``: allowed and refused requests, one run at a time, and nothing left at the end."""

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
from proact.lab.claims import TRIALS
from proact.lab.live.form import DEFAULTS, job_of
from proact.lab.live.runs import Runs

Children = Callable[[int], dict[str, int]]

FORM = {
    **DEFAULTS,
    "repeat": "1",
    "what": "load",
    "models": "epoll,threads",
    "workloads": "echo",
    "claims": "",
}
QUICK = {**FORM, "connections": "2", "duration": "0.5"}
TIMELINES = {**dict.fromkeys(FORM, ""), "what": "timelines", "models": "epoll", "workloads": "echo"}
CLAIMS = {**dict.fromkeys(FORM, ""), "what": "claims", "claims": "all", "duration": "0.2", "repeat": "5"}


class Served:
    """A server, and the requests that a browser would send to it."""

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
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
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
        """Send some bytes; return everything that comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
            client.sendall(data)
            return b"".join(iter(lambda: client.recv(65536), b""))

    def events(self, last: str = "", after: str | None = None) -> Iterator[dict[str, Any]]:
        """The events of the run, until one is named ``last``."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
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
        parents = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
                # In stat(5) the parent's pid comes second after the name, which is in parentheses.
                parent = int(path.with_name("stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # the process has just ended
            if b"proact.lab.live.child" in words and str(self.process.pid).encode() in words:
                parents[int(path.parent.name)] = parent
        # A measuring process that forks has a twin with the same words until the twin executes a program.
        return [pid for pid, parent in parents.items() if parent not in parents]

    def close(self, blow: signal.Signals = signal.SIGINT) -> str:
        """End the server; return its stderr."""
        self.process.send_signal(blow)
        out, said = self.process.communicate(timeout=30)
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
    assert served.ask("GET", "/report") == (404, "nothing has been measured yet\n")
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
        client.sendall(head)  # then it leaves without the body
    assert served.ask("GET", "/")[0] == 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": "epoll,kqueue"}, "unknown model 'kqueue': choose from blocking, threads, "),
        ({"models": ""}, "unknown model ''"),
        ({"workloads": "tea"}, "unknown workload 'tea': choose from echo, churn, web, mixed"),
        ({"connections": "0"}, "connections has '0': it takes whole numbers from 1 to "),
        ({"connections": "1" * 5000}, "connections has '111"),
        ({"connections": "900000"}, "900,000 connections need "),
        ({"size": "17M"}, "size has '17M'"),
        ({"duration": "x"}, "duration is 'x': it takes a number of seconds"),
        ({"duration": "nan"}, "duration is nan: it must be from 0.01 to 3600 seconds"),
        ({"repeat": "1,2"}, "repeat is '1,2': it takes one whole number"),
        ({"repeat": 3}, "repeat is missing, or no text"),
        ({"more": "x"}, "unknown field 'more'"),
        ({"what": "tea"}, "what is 'tea': choose from load, load and timelines, timelines, claims"),
        ({"active": "0"}, "active has '0': it takes whole numbers from 1 to "),
        ({"active": "half"}, "active has 'half'"),
        ({"connections": "1,100", "active": "2,50"}, "active is 50, but connections is 1"),
        ({"rate": "1e3"}, "rate has '1e3'"),
        ({"rate": "0"}, "rate has '0': it takes whole numbers from 1 to 10,000,000"),
        ({"workloads": "echo,idle"}, "idle has connections of its own: run it by itself"),
        ({"workloads": "files"}, "files have no active, no rate and no size"),  # the form has a size
        ({"what": "claims"}, "claims has no models"),
        ({"what": "load", "claims": "polling"}, "load has no claims"),
        ({**TIMELINES, "rate": "500"}, "timelines has no rate"),
        ({**TIMELINES, "workloads": "echo,web"}, "a timeline is of one workload and one size"),
        ({**TIMELINES, "workloads": "idle"}, "unknown workload 'idle': choose from echo, churn, web, mixed"),
        ({**TIMELINES, "size": "65K"}, "size has '65K': it takes whole numbers from 1 to 65,536"),
        (
            {"what": "load and timelines", "workloads": "files", "size": ""},
            "timelines need a workload with requests: files has none",
        ),
        ({**CLAIMS, "claims": "three"}, "unknown claim 'three': choose from two-calls, "),
        ({**CLAIMS, "repeat": "0"}, "repeat is '0'"),
        ({**CLAIMS, "duration": "-1"}, "duration is -1: it must be from 0.01 to 3600 seconds"),
        ({**CLAIMS, "active": "1"}, "claims has no active"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_form_that_asks_wrongly(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AskedError) as caught:
        job_of({**FORM, **change})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_what_a_form_asks_for_is_what_is_measured() -> None:
    job = job_of({**FORM, "connections": "1,10", "size": "1K"})
    assert (job.settings.models, job.settings.sizes) == (("epoll", "threads"), (1024,))
    assert (len(job.cells), len(job.split), job.plans, job.trials) == (4, 4, (), ())
    idle = {"workloads": "idle", "connections": "10,100", "active": "2", "rate": "500"}
    job = job_of({**FORM, "what": "load and timelines", **idle})
    loads = {(cell.workload, cell.connections, cell.active, cell.rate) for cell in job.cells}
    assert loads == {("echo", 10, 2, 500.0), ("echo", 100, 2, 500.0)}
    assert [(plan.model, plan.workload) for plan in job.plans] == [("epoll", "echo"), ("threads", "echo")]
    usual = job_of({**FORM, "workloads": "idle", "connections": ""}).settings
    assert (usual.connections, usual.active) == ((10, 100, 1000, 10000), (1,))
    job = job_of({**TIMELINES, "workloads": "web", "size": "64"})
    assert (job.cells, [(plan.workload, plan.size) for plan in job.plans]) == ((), [("web", 64)])
    job = job_of(CLAIMS)
    assert [trial.name for trial in job.trials] == list(TRIALS)
    assert job.cells
    assert job.plans


def test_a_run_from_its_start_to_its_report(served: Served, lab_children: Children) -> None:
    assert served.post("/start", {**QUICK, "models": "kqueue"})[0] == 400
    assert served.post("/start", [])[:2] == (400, "the form is no object\n")
    assert served.post("/start", QUICK) == (202, "started\n")
    assert served.post("/start", QUICK) == (409, "a run is going on: stop it, or wait for its end\n")
    events = list(served.events("ended"))
    assert [each["event"] for each in events[:3]] == ["begun", "planned", "started"]
    assert events[1]["steps"] == 2
    finished = [each for each in events if each["event"] == "finished"]
    assert {each["model"] for each in finished} == {"epoll", "threads"}
    for each in finished:
        assert each["status"] == "ok"
        assert each["rate"] > 0 < each["p50"] <= each["p99"]
    assert events[-1] == {"event": "ended", "how": "done", "reason": None, "results": True}
    # A late watcher gets all events, a returning one gets those that it has missed.
    assert list(served.events("ended")) == events
    assert list(served.events("ended", after=f"1.{len(events) - 2}")) == events[-1:]
    assert list(served.events("ended", after="1.x")) == events
    document = json.loads(served.ask("GET", "/results.json")[1])
    assert len(document["cells"]) == 2
    assert "No ranking: a model has only 1 repeat" in served.ask("GET", "/report")[1]
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
    ended = list(served.events("ended"))[-1]
    assert ended == {
        "event": "ended",
        "how": "stopped",
        "reason": "nothing was measured",
        "results": False,
    }
    assert served.ask("GET", "/report")[0] == 404
    assert served.post("/start", {**QUICK, "models": "epoll"})[0] == 202
    assert list(served.events("ended"))[-1]["how"] == "done"


def test_a_run_that_is_stopped_has_a_report_of_what_it_has_measured(served: Served) -> None:
    assert served.post("/start", {**QUICK, "models": "epoll", "repeat": "500"})[0] == 202
    next(each for each in served.events("finished") if each["event"] == "finished")
    assert served.post("/stop") == (200, "stopped\n")
    ended = list(served.events("ended"))[-1]
    assert (ended["how"], ended["results"]) == ("stopped", True)
    document = json.loads(served.ask("GET", "/results.json")[1])
    done = len(document["cells"])
    assert 1 <= done < 500
    assert ended["reason"] == document["stopped"] == f"{done} of 500 cells"
    report = served.ask("GET", "/report")[1]
    assert f"Stopped early: {done} of 500 cells." in report
    assert "Download the raw results" in report
    # A run that is stopped before it has measured anything leaves these results in place.
    assert served.post("/start", {**FORM, "duration": "600"})[0] == 202
    next(each for each in served.events("started") if each["event"] == "started")
    assert served.post("/stop")[0] == 200
    assert json.loads(served.ask("GET", "/results.json")[1]) == document


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
    await runs.start(FORM)
    async with contextlib.aclosing(runs.events(None)) as events:
        assert '"begun"' in await anext(events)
        ended = await anext(events)
    assert "failed" in ended
    assert "the measuring process does not speak JSON: Expecting value" in ended
    assert not runs.going_on
    await runs.stop()


def wait(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
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


def ticked(*values: str) -> str:
    """JavaScript that ticks these boxes, and no others in their groups, as a visitor would."""
    return f"""{{
      const wanted = {json.dumps(values)};
      const groups = wanted.map((value) => form.querySelector(`[value="${{value}}"]`).name);
      for (const box of form.querySelectorAll("input")) {{
        const ticked = wanted.includes(box.value), mine = groups.includes(box.name) && !box.disabled;
        if (mine && box.checked !== ticked && (ticked || box.type === "checkbox")) box.click();
      }}
    }}"""


def filled(**fields: str) -> str:
    """JavaScript that writes these values into their fields."""
    return "; ".join(f"form.elements.{name}.value = {json.dumps(value)}" for name, value in fields.items())


START = "document.getElementById('start').click()"
STATE = "document.getElementById('state').textContent"
PROBLEM = "document.getElementById('problem').textContent"
ROWS = "document.querySelectorAll('#cells tr').length"
BARS = "document.querySelector('#chart .chart')?.data?.[0].x[0] > 0"


def report_of(served: Served, browser: chromium.Browser) -> chromium.Page:
    """The report of the run in a new tab, with every chart drawn with its data."""
    page = browser.open(f"{served.url}report")
    for chart in page.charts():
        assert chart["points"]
        assert min(chart["points"]) > 0
        assert chart["drawn"] == chart["traces"]
        assert chart["cut"] == []
    assert page.errors() == []
    return page


def test_in_a_browser_a_click_starts_and_another_stops(served: Served, browser: chromium.Browser) -> None:
    page = browser.open(served.url, width=360, height=760)
    page.run(ticked("epoll"))
    page.run(filled(size="99M", connections="2", duration="0.2", repeat="1"))
    page.run(START)
    page.until(f"{PROBLEM}.startsWith(\"size has '99M'\")")
    noted = page.errors()
    assert len(noted) == 1
    assert "400 (Bad Request)" in noted[0]  # the browser's own note of that
    page.run(filled(size="1K"))
    page.run(START)
    page.until("!document.getElementById('links').hidden")
    assert page.run(f"{STATE} + {PROBLEM}") == "Done."
    assert page.run(ROWS) == 1
    assert page.run("document.querySelectorAll('#cells .number').length") == 4
    page.until(BARS)
    assert page.run("document.documentElement.scrollWidth") == 360
    page.run(filled(repeat="500"))
    page.run(START)
    page.until(f"{STATE}.startsWith('3 of 500')")
    page.run("document.getElementById('stop').click()")
    page.until(f"{STATE}.startsWith('Stopped early: ')")
    assert served.children() == []
    assert page.run("document.getElementById('links').hidden") is False
    report = report_of(served, browser)
    assert "Stopped early: " in report.run("document.querySelector('header .warning').textContent")
    report.close()
    assert {url.startswith(served.url) for url in page.requests()} == {True}
    assert page.errors() == noted
    page.close()


def test_in_a_browser_few_of_many_send_at_a_fixed_rate_and_one_request_is_drawn(
    served: Served, browser: chromium.Browser
) -> None:
    page = browser.open(served.url)
    page.run(ticked("load and timelines", "epoll", "idle"))
    assert page.run("[form.elements.connections.value, form.elements.active.value]") == ["10,100,1000", "1"]
    page.run(filled(connections="20", active="2", rate="200", duration="0.2", repeat="1"))
    page.run(START)
    page.until(f"{STATE} === 'Done.'", seconds=60)
    assert page.run(ROWS) == 2
    cells = page.run("document.getElementById('cells').textContent")
    assert "echo: 20 connections, 2 active x 1 KiB, 200 messages/s" in cells
    assert re.search(r"echo, one request x 1 KiBanswered in [\d.,]+ µs", cells)
    page.until(BARS)
    assert page.run("document.getElementById('drawn').textContent").startswith("99th percentile of latency")
    report = report_of(served, browser)
    titles = report.run("[...document.querySelectorAll('h2')].map((each) => each.textContent)")
    assert "One request through each model" in titles
    assert "echo: 20 connections, 2 active x 1 KiB, 200 messages/s" in titles
    report.close()
    assert page.errors() == []
    page.close()


def test_in_a_browser_claims_are_judged(served: Served, browser: chromium.Browser) -> None:
    page = browser.open(served.url, dark=True)
    page.run(ticked("claims"))
    shown = "[...form.elements].filter((each) => each.checkVisibility()).map((each) => each.name)"
    assert set(page.run(shown)) - {""} == {"what", "claims", "duration", "repeat"}
    assert page.run("[form.elements.duration.value, form.elements.repeat.value]") == ["0.2", "5"]
    page.run(ticked("blocked-in-select"))
    page.run(START)
    page.until(f"{STATE} === 'Done.'", seconds=90)
    assert page.run(ROWS) == 3
    verdict = page.run("document.querySelector('#verdicts .claim').textContent")
    assert TRIALS["blocked-in-select"].text in verdict
    report = report_of(served, browser)
    assert report.run("document.querySelectorAll('article.claim').length") == 1
    assert len(json.loads(report.run("document.getElementById('results').textContent"))["timelines"]) == 3
    report.close()
    assert page.errors() == []
    page.close()


def test_in_a_browser_what_does_not_go_together_is_told_before_anything_is_sent(
    served: Served, browser: chromium.Browser
) -> None:
    page = browser.open(served.url)
    for boxes, fields, said in (
        (["load", "echo", "idle"], {}, "idle has connections of its own"),
        (["load", "files"], {"rate": "500"}, "files have no share that sends"),
        (["load and timelines", "files"], {"rate": ""}, "Timelines need a workload with requests"),
        (["timelines", "echo", "web"], {}, "A timeline is of one workload"),
        (["timelines", "web"], {"size": "1,2"}, "A timeline is of one workload"),
    ):
        page.run(ticked(*boxes))
        page.run(filled(**fields))
        page.run(START)
        page.until(f"{PROBLEM}.startsWith({json.dumps(said)})")
    page.run("form.querySelector('button[value=\"\"]').click()")  # no model
    page.run(START)
    page.until(f"{PROBLEM} === 'Choose a model.'")
    page.run(ticked("load", "echo", "epoll"))
    page.run(filled(rate="fast"))
    page.run(START)
    assert page.run("form.elements.rate.matches(':invalid')") is True
    assert f"{served.url}start" not in page.requests()
    assert page.errors() == []
    page.close()


def test_the_three_questions_are_answered_or_refused(served: Served) -> None:
    status, said = served.ask("GET", "/choose?connections=20&active=2&does=wait:5ms&size=4K")
    assert status == 200
    found = json.loads(said)
    assert bool(found["recommended"]) != found["sentence"].startswith("No recommendation for 20 connections")
    assert found["workload"] == "wait-5ms"
    for wrong, message in (
        ("connections=ten&does=nothing", "connections is 'ten'"),
        ("connections=1&active=2&does=nothing", "active is 2, but connections is 1"),
        ("connections=1&does=cpu", "does is 'cpu'"),
    ):
        assert served.ask("GET", f"/choose?{wrong}")[0] == 400
        assert message in served.ask("GET", f"/choose?{wrong}")[1]


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_in_a_browser_the_question_and_start_are_above_the_fold(
    served: Served, browser: chromium.Browser, width: int, height: int
) -> None:
    page = browser.open(served.url, width=width, height=height)
    for name in ("choose", "start", "progress", "left"):
        bottom = page.run(f"document.getElementById('{name}').getBoundingClientRect().bottom")
        assert 0 < bottom < height, name
    page.run("document.getElementById('choose').requestSubmit()")
    page.until("document.getElementById('said').textContent.includes('1,000 connections')")
    assert page.run("document.getElementById('said').getBoundingClientRect().bottom") < 0.7 * height
    assert page.run("document.documentElement.scrollWidth") == width
    assert page.errors() == []
    page.close()


def test_in_a_browser_the_figures_tick_within_a_cell(served: Served, browser: chromium.Browser) -> None:
    page = browser.open(served.url)
    page.run(ticked("epoll"))
    page.run(filled(connections="2", duration="60", repeat="1"))
    page.run(START)
    figures = "['rate', 'p50', 'p99'].map((name) => parseFloat(document.getElementById(name).textContent))"
    page.until(f"{figures}.every((figure) => figure > 0)")
    assert page.run("parseInt(document.getElementById('left').textContent)") > 0
    assert page.run(ROWS) == 0  # no cell is done
    page.run("document.getElementById('stop').click()")
    page.until("document.getElementById('stop').disabled")
    assert page.errors() == []
    page.close()


def test_a_run_for_an_answer_measures_again_what_was_disturbed() -> None:
    settings = job_of({**FORM, "what": "choice"}).settings
    assert (settings.again, settings.split) == (True, False)
    assert job_of(FORM).settings.again is False
