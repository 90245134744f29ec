"""Every model serves every workload that it can: correct bytes, in order, also while a file is read."""

from __future__ import annotations

import http.client
import socket

import pytest

from proact.lab.server_process import ServerProcess, exchange
from proact.lab.workloads import WORKLOADS, Exchange
from proact.lab.workloads import disk as disk_workload

SERVED = ("web", "mixed")


def connect(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=5)


def body(size: int) -> bytes:
    return b"".join(b"%015x\n" % number for number in range(size // 16 + 1))[:size]


def test_a_client_gets_what_it_asks_for(server: ServerProcess) -> None:
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    for size in (0, 1, 16, 1000, 300_000, 1):
        client.request("GET", f"/bytes/{size}")
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (200, body(size))
    client.request("GET", "/", headers={"Accept": "text/html", "Accept-Encoding": "gzip"})
    answer = client.getresponse()
    assert (answer.status, answer.read()) == (200, b"GET /bytes/N answers N bytes\n")
    assert answer.headers["Content-Type"] == "text/plain"
    for wrong in ("/bytes", "/bytes/", "/bytes/-1", "/bytes/99999999999"):
        client.request("GET", wrong)
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (404, b"there is only /bytes/N\n")
    client.close()


def test_requests_in_pieces_and_pipelined(server: ServerProcess) -> None:
    one = WORKLOADS["web"].exchange(10)
    assert one is not None
    with connect(server) as connection:
        assert exchange(connection, Exchange(one.request * 50, one.response * 50), 5) == one.response * 50
        connection.settimeout(5)
        for byte in one.request[:-1]:
            connection.send(bytes([byte]))
        connection.send(one.request[-1:])
        assert connection.recv(65536) == one.response


def test_what_is_no_http_is_refused_and_closed(server: ServerProcess) -> None:
    with connect(server) as connection:
        connection.settimeout(5)
        connection.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        said = connection.recv(65536)
        assert said.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        if server.model == "rloop":
            pytest.skip("rloop leaves a transport open that is closed right after a write in data_received")
        assert connection.recv(1) == b""
    with connect(server) as connection:
        connection.settimeout(5)
        connection.sendall(b"GET /bytes/3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said = b""
        while piece := connection.recv(65536):
            said += piece
        assert said.endswith(b"\r\n\r\n000")


def test_the_slow_file_is_read(server: ServerProcess) -> None:
    if server.workload != "mixed":
        pytest.skip("the slow file belongs to the mixed workload")
    slow, quick = WORKLOADS["mixed"].slow(), WORKLOADS["mixed"].exchange(5)
    assert slow is not None
    assert quick is not None
    for number in range(disk_workload.PIECES):
        assert disk_workload.block(number) in slow.response
    with connect(server) as connection:
        for each in (slow, quick, slow, quick):
            assert exchange(connection, each, 10) == each.response
