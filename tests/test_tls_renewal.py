"""TLS that agrees on new keys in the middle of the traffic: key updates (1.3), renegotiation (1.2).

Python's ssl can request neither. So the tests call OpenSSL itself, with the session that an SSLObject holds.
"""

import asyncio
import ctypes
import ssl

import pytest
from support import loops, peers, tls
from support.protocols import Recorder

# From openssl/ssl.h.
KEY_UPDATE_REQUESTED = 1
KEY_UPDATE_NONE = -1
ALLOW_CLIENT_RENEGOTIATION = 1 << 8


@pytest.fixture(scope="module")
def openssl():
    """The library that Python's ssl uses, if it has these functions."""
    import _ssl

    with open("/proc/self/maps") as file:
        mapped = {line.split(maxsplit=5)[-1].strip() for line in file}
    found = [path for path in mapped if "/libssl" in path]
    if len(found) != 1:
        pytest.skip(f"no one libssl that {_ssl.__name__} shares with us: {found}")
    library = ctypes.CDLL(found[0])
    pointer = ctypes.c_void_p
    library.SSL_key_update.argtypes = [pointer, ctypes.c_int]
    library.SSL_get_finished.argtypes = [pointer, ctypes.c_char_p, ctypes.c_size_t]
    for name in ("get_key_update_type", "renegotiate", "renegotiate_pending", "in_init"):
        getattr(library, f"SSL_{name}").argtypes = [pointer]
    return library


def session(transport):
    """The `SSL *` of a transport: the second member of CPython's PySSLSocket."""
    holder = transport.get_extra_info("ssl_object")._sslobj
    place = id(holder) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
    return ctypes.c_void_p.from_address(place).value


def finished(openssl, transport):
    """This side's Finished message of its last handshake: no two handshakes have equal ones."""
    said = ctypes.create_string_buffer(64)
    size = openssl.SSL_get_finished(session(transport), said, len(said))
    return said.raw[:size]


def contexts(version, **options):
    server, client = tls.server_context(), tls.client_context(version=version)
    server.options |= options.get("server", 0)
    client.options |= options.get("client", 0)
    return {"server": server, "client": client}


async def exchange(near, far, between):
    """Send much data both ways; call `between` several times in the middle of it."""
    there, back = peers.payload(4 << 20, seed=1), peers.payload(4 << 20, seed=2)
    for start in range(0, len(there), 1 << 18):
        near.transport.write(there[start : start + (1 << 18)])
        far.transport.write(back[start : start + (1 << 18)])
        if start % (1 << 20) == 0:
            between()
        await loops.turns(2)
    assert peers.digest(await far.received(len(there))) == peers.digest(there)
    assert peers.digest(await near.received(len(back))) == peers.digest(back)


@pytest.mark.parametrize("who", ["client", "server", "both"])
async def test_key_updates(loop, openssl, who):
    async with tls.connected(
        loop, lambda: Recorder(loop), lambda: Recorder(loop), **contexts(ssl.TLSVersion.TLSv1_3)
    ) as (near, far):
        updated = []

        def update():
            for side, protocol in (("client", near), ("server", far)):
                if who in (side, "both"):
                    it = session(protocol.transport)
                    assert openssl.SSL_key_update(it, KEY_UPDATE_REQUESTED) == 1
                    assert openssl.SSL_get_key_update_type(it) == KEY_UPDATE_REQUESTED
                    updated.append(it)

        await exchange(near, far, update)
        assert len(updated) >= 4
        # The key update left with the first bytes after it: the traffic continued under new keys.
        assert {openssl.SSL_get_key_update_type(it) for it in updated} == {KEY_UPDATE_NONE}
        assert await near.close() is None
        assert await far.lost is None


def negotiating(openssl, transport):
    """Whether a handshake is due or under way."""
    it = session(transport)
    return openssl.SSL_renegotiate_pending(it) == 1 or openssl.SSL_in_init(it) == 1


@pytest.mark.parametrize("who", ["client", "server"])
async def test_renegotiation(loop, openssl, who):
    both = contexts(ssl.TLSVersion.TLSv1_2, server=ALLOW_CLIENT_RENEGOTIATION)
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Recorder(loop), **both) as (near, far):
        asking = near if who == "client" else far
        secrets = {finished(openssl, near.transport)}

        def renegotiate():
            # One at a time: OpenSSL does not expect a request in the middle of a handshake.
            if not negotiating(openssl, asking.transport):
                secrets.add(finished(openssl, near.transport))
                assert openssl.SSL_renegotiate(session(asking.transport)) == 1

        await exchange(near, far, renegotiate)
        size = len(near.data)
        for _ in range(100):
            if not negotiating(openssl, asking.transport):
                break
            near.transport.write(b"more")
            far.transport.write(b"more")
            size += 4
            await asyncio.sleep(0.001)
        # Data that is still on its way when one side closes ends the connection with an error, as in asyncio.
        await far.received(size)
        await near.received(size)
        secrets.add(finished(openssl, near.transport))
        assert len(secrets) >= 2, "the handshake is still the first"
        assert await near.close() is None
        assert await far.lost is None


async def test_a_client_that_may_not_renegotiate(loop, openssl):
    # OpenSSL's default for a server: it refuses, and the client gives up; nothing hangs.
    both = contexts(ssl.TLSVersion.TLSv1_2)
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Recorder(loop), **both) as (near, far):
        assert openssl.SSL_renegotiate(session(near.transport)) == 1
        near.transport.write(b"under new keys")
        reason = await near.lost
        assert isinstance(reason, ssl.SSLError)
        assert reason.reason in ("NO_RENEGOTIATION", "TLSV1_ALERT_NO_RENEGOTIATION")
        await far.lost
        assert far.data == b""
