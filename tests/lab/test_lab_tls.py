"""The load over TLS: every byte is verified, whatever the server does, and each model's TLS is its own."""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Any

import pytest
from support.watching import Watcher

from proact.lab.load import apply
from proact.lab.measure import OWN_TLS, TLS_IN_MEMORY
from proact.lab.registry import MODELS, missing_library
from proact.lab.run import Settings, run
from proact.lab.server_process import ServerProcess
from proact.lab.workloads import WORKLOADS
from proact.lab.workloads.tls import client_context, server_context

SERVED = ("tls",)

pytestmark = pytest.mark.skipif(
    missing_library(*(WORKLOADS["tls"].library or ("", ""))) is not None, reason="no OpenSSL here"
)


def load(port: int, **change: Any) -> dict[str, Any]:
    spec = {"host": "127.0.0.1", "port": port, "workload": "tls", "connections": 3, "size": 100}
    return apply({**spec, "warmup": 0.05, "duration": 0.2, **change})


def test_a_load_is_verified(server: ServerProcess) -> None:
    alone = MODELS[server.model].connection_limit == 1
    for size in (1, 100_000):
        answer = load(server.port, size=size, connections=1 if alone else 3, idle=0 if alone else 2)
        assert answer["result"]["messages"] > 3, answer
        assert answer["result"]["bytes"] == answer["result"]["messages"] * size


def test_it_is_tls_1_3_with_our_certificate(server: ServerProcess) -> None:
    with server.connect(5) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        assert connection.version() == "TLSv1.3"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as plain:
        with pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")


def test_what_is_no_tls_is_refused_and_no_more(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        said = b""
        try:
            while data := plain.recv(4096):
                said += data
        except ConnectionResetError:
            pass
        except TimeoutError:
            if server.model != "rloop":  # it leaves a transport open that is closed in data_received
                raise
        assert b"HTTP" not in said
    server.check(10)


def serve_once(answer: bytes | None) -> int:
    """A server of one TLS connection that gives one ``answer``, or ends without a close_notify."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, server_context().wrap_socket(listener.accept()[0], server_side=True) as peer:
            peer.recv(100)
            if answer is not None:
                peer.sendall(answer)
                peer.recv(1)

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def test_other_bytes_are_found() -> None:
    assert "expected 0x" in load(serve_once(b"x" * 100), connections=1)["error"]
    assert "closed by the server after 0 bytes" in load(serve_once(None), connections=1)["error"]


def test_a_server_without_tls_fails_the_load() -> None:
    with ServerProcess("epoll", "echo") as server:
        assert load(server.port)["error"].startswith("TLS handshake: ")


def test_whose_tls_it_is_is_said() -> None:
    settings = Settings(
        models=("threads", "epoll"), workloads=("tls",), connections=(2,), duration=0.1, warmup=0.0
    )
    document = run(settings, Watcher())
    how = {cell["model"]: cell["measured"] and cell["measured"].get("how") for cell in document["cells"]}
    assert how == {"threads": OWN_TLS, "epoll": TLS_IN_MEMORY}


def test_client_context_trusts_nobody_else() -> None:
    assert [each["subject"] for each in client_context().get_ca_certs()] == [
        ((("commonName", "proact laboratory"),),)
    ]
