"""The tls workload: echo over TLS 1.3. Each model uses its own TLS if it has one.

The others get a session that is TLS itself: Python's ``ssl`` between two buffers in memory, so that a model
which only moves bytes moves encrypted ones.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proact.lab.workloads.echo import exchange
from proact.lab.workloads.session import Session

if TYPE_CHECKING:
    from proact.lab.workloads import Sessions

__all__ = ("client_context", "exchange", "server_context", "sessions")

#: The file with certificate and key.
CERTIFICATE: Final = Path(__file__).with_name("tls.pem")

#: The plain bytes of one read: a record holds no more.
_RECORD: Final = 16 * 1024


def server_context() -> ssl.SSLContext:
    """TLS 1.3 with the laboratory's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(CERTIFICATE)
    return context


def client_context() -> ssl.SSLContext:
    """A client that trusts this certificate alone."""
    return ssl.create_default_context(cafile=str(CERTIFICATE))


class Tls(Session):
    """Decrypts what arrives, and sends it back encrypted."""

    __slots__ = ("_in", "_out", "_shaken", "_tls", "over")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._shaken = False
        self.over = False

    def feed(self, data: bytes) -> bytes:
        self._in.write(data)
        try:
            if not self._shaken:
                self._tls.do_handshake()
                self._shaken = True
            while plain := self._tls.read(_RECORD):
                self._tls.write(plain)
            self.over = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:  # this peer does not speak TLS, or no longer
            self.over = True
        return self._out.read()


def sessions() -> Sessions:
    """TLS in memory, for models without a TLS of their own."""
    context = server_context()
    return lambda: Tls(context)
