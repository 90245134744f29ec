"""The routes of the page, and the check of who may use them. Served on proact's own loop.

Only this machine can reach it, unless ``--host`` says otherwise. A page of another site must not command it
through the visitor's browser. So the Host header has to name this machine (otherwise, a name that somebody
else controls could be pointed here), and a request that changes anything needs the token that only our own
page gets.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from proact import run as run_on_proact
from proact.lab.asked import AskedError
from proact.lab.choose.answer import Answer, answer
from proact.lab.choose.question import question as ask
from proact.lab.choose.sources import machine, shipped
from proact.lab.live.form import job_of
from proact.lab.live.http import Connection, RefusedError, Request, Response, text
from proact.lab.live.page import live_page
from proact.lab.live.runs import BusyError, Runs
from proact.lab.report.choice import as_reply
from proact.lab.report.drawing import plotly_js
from proact.lab.report.page import asset, to_html

if TYPE_CHECKING:
    from collections.abc import Callable

    from proact.lab.results import Document

#: The policy of the page: only our scripts, and nothing is fetched from elsewhere. The report brings its own
#: policy.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)

_HTML: Final = "text/html; charset=utf-8"
_SCRIPT: Final = "text/javascript; charset=utf-8"


class Server:
    """The laboratory's page and the run that it shows."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._token = secrets.token_urlsafe(24)
        self._runs = Runs()
        self._plotly = plotly_js().encode()
        self._report: tuple[object, bytes] = (None, b"")

    async def serve(self, port: int, ready: Callable[[str], None]) -> None:
        """Serve until cancelled; call ``ready`` with the address. Raises OSError if it cannot listen."""
        connections: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._talk(reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        listening = await asyncio.start_server(connected, self._host, port)
        try:
            bound = listening.sockets[0].getsockname()[1]
            name = f"[{self._host}]" if ":" in self._host else self._host
            ready(f"http://{name}:{bound}/")
            await asyncio.get_running_loop().create_future()  # for ever
        finally:
            listening.close()
            await self._runs.stop()
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, request after request."""
        connection = Connection(reader, writer)
        try:
            while (request := await connection.request()) is not None:
                response = await self._answer(request)
                if response.events is not None:
                    await connection.stream(response)
                    break
                await connection.respond(response, keep_alive=request.keep_alive)
                if not request.keep_alive:
                    break
        except RefusedError as error:
            with contextlib.suppress(ConnectionError):
                await connection.respond(text(error.status, str(error)), keep_alive=False)
        except ConnectionError:
            pass  # the visitor has left
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, request: Request) -> Response:
        try:
            self._admit(request)
            return await self._respond(request)
        except RefusedError as error:
            return text(error.status, str(error))
        except AskedError as error:
            return text(HTTPStatus.BAD_REQUEST, str(error))

    def _admit(self, request: Request) -> None:
        """Raise RefusedError if the request cannot come from our own page."""
        host = request.headers.get("host", "")
        if not self._is_ours(host):
            raise RefusedError(HTTPStatus.MISDIRECTED_REQUEST, f"the host {host!r} is not served here")
        if request.method == "GET":
            return
        if request.method != "POST":
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "there is only GET and POST")
        origin = request.headers.get("origin", f"http://{host}")
        token = request.headers.get("x-proact-token", "")
        if origin != f"http://{host}" or not secrets.compare_digest(token.encode(), self._token.encode()):
            raise RefusedError(
                HTTPStatus.FORBIDDEN, "this has to come from the laboratory's own page: open it anew"
            )

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this machine: localhost, the given host, or any address."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.strip("[]").lower()
        if name in ("localhost", "127.0.0.1", "::1", self._host.lower()):
            return True
        try:  # it listens on every address; an address is not a name that somebody else could point here
            return ipaddress.ip_address(self._host).is_unspecified and bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    async def _respond(self, request: Request) -> Response:
        match request.method, request.path:
            case "GET", "/":
                page = live_page(self._token).encode()
                return Response(page, _HTML, headers={"Content-Security-Policy": _POLICY})
            case "GET", "/plotly.js":
                return Response(self._plotly, _SCRIPT, headers={"Cache-Control": "private, max-age=3600"})
            case "GET", "/charts.js":
                return Response(asset("charts.js").encode(), _SCRIPT)
            case "GET", "/live.js":
                return Response(asset("live.js", "proact.lab.live").encode(), _SCRIPT)
            case "GET", "/choose.js":
                return Response(asset("choose.js", "proact.lab.live").encode(), _SCRIPT)
            case "GET", "/style.css":
                return Response(asset("style.css").encode(), "text/css; charset=utf-8")
            case "GET", "/events":
                events = self._runs.events(request.headers.get("last-event-id"))
                return Response(content_type="text/event-stream", events=events)
            case "GET", "/report":
                return Response(await self._report_page(), _HTML)
            case "GET", "/choose":
                return Response(json.dumps(await self._choose(request)).encode(), "application/json")
            case "GET", "/reference":
                return Response((await asyncio.to_thread(to_html, self._reference())).encode(), _HTML)
            case "GET", "/results.json":
                name = {"Content-Disposition": 'attachment; filename="proact-lab.json"'}
                return Response(json.dumps(self._results()).encode(), "application/json", headers=name)
            case "POST", "/start":
                return await self._start(request)
            case "POST", "/stop":
                if not self._runs.going_on:
                    raise RefusedError(HTTPStatus.CONFLICT, "no run is going on")
                await self._runs.stop()
                return text(HTTPStatus.OK, "stopped")
            case _:
                raise RefusedError(HTTPStatus.NOT_FOUND, f"there is no {request.path}")

    async def _start(self, request: Request) -> Response:
        try:
            form = json.loads(request.body)
        except ValueError:  # no UTF-8, no JSON
            raise AskedError("the form is no JSON") from None
        try:
            job_of(form)  # raises AskedError
            await self._runs.start(form)
        except BusyError as error:
            raise RefusedError(HTTPStatus.CONFLICT, str(error)) from None
        except OSError as error:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, f"no process to measure in: {error}") from None
        return text(HTTPStatus.ACCEPTED, "started")

    async def _choose(self, request: Request) -> dict[str, object]:
        """The answer to the page's three questions: from the last run, or from the reference."""
        asked = {name: request.query.get(name, "") for name in ("connections", "active", "does", "size")}
        question = ask(**asked, dashes="")
        mine = self._runs.document
        found = await asyncio.to_thread(answer, question, mine) if mine is not None else None
        if mine is not None and found is not None and found.models:
            return as_reply(found, f"the last run on this page, {machine(mine)}", "/report")
        reference = shipped()
        if reference is None:
            sentence = f"No recommendation for {question.words}: nothing has been measured for it yet."
            nothing = found or Answer(question, sentence, (), (), interpolated=False, unknown={})
            return as_reply(nothing, "", "")
        found = await asyncio.to_thread(answer, question, reference)
        source = f"the reference that proact ships, {machine(reference)}: your machine differs"
        return as_reply(found, source, "/reference")

    def _reference(self) -> Document:
        reference = shipped()
        if reference is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "this copy of proact ships no reference")
        return reference

    def _results(self) -> Document:
        if self._runs.document is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "nothing has been measured yet")
        return self._runs.document

    async def _report_page(self) -> bytes:
        document = self._results()
        if self._report[0] is not document:
            page = await asyncio.to_thread(to_html, document)
            self._report = document, page.encode()
        return self._report[1]


def serve(host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the laboratory's page until KeyboardInterrupt, which it raises. Raises OSError, DrawingError."""
    run_on_proact(Server(host).serve(port, ready))
