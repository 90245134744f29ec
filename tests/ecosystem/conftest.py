"""The shared part of the tests of real programs on proact, with real peers.

They are collected only if the dependency group `ecosystem` is installed, as `make ecosystem` does (it
installs the servers too), so that `make test` stays small. They run on io_uring and epoll, unless
PROACT_TEST_ENGINES says otherwise. tests/conftest.py watches these tests, too: no fd, task
or thread is left, no op in flight, no error is unseen, no warning is given. With
PROACT_TEST_LOOP=asyncio they show how the program behaves on asyncio.
"""

from __future__ import annotations

import importlib.util
import os
import ssl
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

if importlib.util.find_spec("fastapi") is None:
    collect_ignore_glob = ["*"]
else:
    import trustme
    from support import daemons, loops

    if not os.environ.get("PROACT_TEST_ENGINES"):
        os.environ["PROACT_TEST_ENGINES"] = "io_uring,epoll"


class Certificate(NamedTuple):
    chain: Path  # of the server, PEM
    key: Path
    authority: Path

    def server(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.chain, self.key)
        return context

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> Certificate:
    """A certificate for 127.0.0.1 and localhost."""
    files = Certificate(*(tmp_path_factory.mktemp("tls") / name for name in ("chain", "key", "authority")))
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files.chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(files.key)
    authority.cert_pem.write_to_path(files.authority)
    return files


@pytest.fixture(scope="session")
def redis_port():
    with daemons.redis() as port:
        yield port


@pytest.fixture(scope="session")
def postgres(certificate):
    with daemons.postgres(certificate.chain, certificate.key) as server:
        yield server


@pytest.fixture
def here(loop) -> str:
    """The result of `loops.identify` inside a program that runs on this test's loop."""
    return loops.identify(loop)


@pytest.fixture(autouse=True, scope="session")
def idle_threads_end():
    """Threads of proact's files that have nothing to do end at once here."""
    from proact.fs import pool

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "_IDLE", 0.01)
        yield


@pytest.fixture(autouse=True)
def idle_workers(unhandled):
    """Wait for anyio's idle workers and dask's profilers: these are told to end, but that takes a moment."""
    yield
    for thread in threading.enumerate():
        if thread.name in ("AnyIO worker thread", "Profile"):
            thread.join(5)
