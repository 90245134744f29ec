"""The TLS handshake: which server a client trusts, which client a server admits, and what can go wrong."""

import asyncio
import contextlib
import gc
import socket
import ssl
import weakref

import pytest
from support import loops, peers, tls
from support.protocols import Echo, Recorder, serving


def connect(loop, address, context=None, hostname=tls.NAME, **options):
    return loop.create_connection(
        lambda: Recorder(loop),
        *address,
        ssl=context or tls.client_context(),
        server_hostname=hostname,
        **options,
    )


@pytest.mark.parametrize(
    ("client", "server", "expected"),
    [(["h2", "http/1.1"], ["http/1.1"], "http/1.1"), (["h2"], ["http/1.1"], None), ([], ["h2"], None)],
    ids=["agreed", "nothing in common", "not asked"],
)
async def test_alpn(loop, client, server, expected):
    near_context, far_context = tls.client_context(), tls.server_context()
    if client:
        near_context.set_alpn_protocols(client)
    far_context.set_alpn_protocols(server)
    async with tls.connected(
        loop, lambda: Recorder(loop), lambda: Recorder(loop), far_context, near_context
    ) as (near, far):
        for end in (near, far):
            assert end.transport.get_extra_info("ssl_object").selected_alpn_protocol() == expected


async def test_the_name_that_a_client_asks_for(loop):
    asked = []
    context = tls.server_context()
    context.sni_callback = lambda session, name, _: asked.append((type(session), name))
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Echo(loop), context):
        assert asked == [(ssl.SSLObject, "localhost")]


@pytest.mark.parametrize(
    ("certificate", "hostname", "reason"),
    [("stranger", "localhost", "self-signed|self signed"), ("server", "example.org", "Hostname mismatch")],
    ids=["self-signed", "another name"],
)
async def test_a_server_that_is_not_believed(loop, certificate, hostname, reason):
    async with serving(loop, lambda: Recorder(loop), ssl=tls.server_context(certificate)) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match=reason):
            await connect(loop, server.address, hostname=hostname)
        await loops.turns(5)
        await forgotten(server)


async def forgotten(server):
    """Check that the server made no connection, and that its protocols are freed."""
    await asyncio.sleep(0.01)
    for protocol in server.protocols:
        assert protocol.calls in ([], ["connection_made", "connection_lost"])
    server.protocols = [protocol for protocol in server.protocols if protocol.calls]


async def test_a_context_that_checks_nothing(loop):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with tls.connected(
        loop, lambda: Recorder(loop), lambda: Echo(loop), tls.server_context("stranger"), context
    ) as (near, _):
        near.transport.write(b"x")
        assert await near.received(1) == b"x"
        assert near.transport.get_extra_info("peercert") == {}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
async def test_a_client_without_the_certificate_that_is_asked_for(loop, version):
    context = tls.client_context(version=version)
    async with serving(loop, lambda: Recorder(loop), ssl=tls.server_context(clients=True)) as server:
        # In TLS 1.3 a client's handshake ends before it hears of the refusal.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            _, client = await connect(loop, server.address, context)
            await client.lost
        await forgotten(server)


async def test_a_default_context(loop):
    # ssl=True trusts the system's authorities, and the test authority is not one of them.
    async with serving(loop, lambda: Recorder(loop), ssl=tls.server_context()) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await loop.create_connection(
                lambda: Recorder(loop), *server.address, ssl=True, server_hostname=tls.NAME
            )
        await forgotten(server)


async def test_no_version_in_common(loop):
    context = tls.server_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    async with serving(loop, lambda: Recorder(loop), ssl=context) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect(loop, server.address, tls.client_context(version=ssl.TLSVersion.TLSv1_2))
        await forgotten(server)


async def test_a_server_that_does_not_speak_tls(loop):
    async with serving(loop, lambda: Echo(loop)) as server:
        with pytest.raises(ssl.SSLError):
            await connect(loop, server.address)


async def test_a_client_that_does_not_speak_tls(loop):
    async with serving(loop, lambda: Recorder(loop), ssl=tls.server_context()) as server:
        _, client = await loop.create_connection(lambda: Recorder(loop), *server.address)
        client.transport.write(b"GET / HTTP/1.1\r\n\r\n")
        await client.lost
        assert not client.data.startswith(b"HTTP")
        await forgotten(server)


@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_peer_that_says_nothing(loop, side):
    begun = loop.time()
    message = "SSL handshake is taking longer than 0.05 seconds: aborting the connection"
    if side == "client":
        with peers.listening() as listener:
            with pytest.raises(ConnectionAbortedError, match=message):
                await connect(loop, listener.getsockname(), ssl_handshake_timeout=0.05)
    else:
        async with serving(
            loop, lambda: Recorder(loop), ssl=tls.server_context(), ssl_handshake_timeout=0.05
        ) as server:
            _, client = await loop.create_connection(lambda: Recorder(loop), *server.address)
            await client.lost
            await forgotten(server)
    assert 0.04 < loop.time() - begun < 2


@pytest.mark.parametrize("ending", ["end of file", "reset"])
async def test_a_peer_that_leaves_in_the_handshake(loop, ending):
    with peers.listening() as listener:
        connecting = loop.create_task(connect(loop, listener.getsockname()))
        peer, _ = await loop.sock_accept(listener)
        with peer:
            assert await loop.sock_recv(peer, 4096)
            if ending == "reset":
                peers.reset(peer)
        with pytest.raises(ConnectionResetError):
            await connecting


@pytest.mark.parametrize("ending", ["end of file", "reset"])
async def test_a_client_that_leaves_in_the_handshake(loop, ending):
    engine = tls.Engine()
    with contextlib.suppress(ssl.SSLWantReadError):
        engine.session.do_handshake()
    hello = engine.outgoing.read()
    async with serving(loop, lambda: Recorder(loop), ssl=tls.server_context()) as server:
        for sent in (hello, hello[:50], b""):
            with socket.create_connection(server.address) as peer:
                peer.sendall(sent)
                await asyncio.sleep(0.005)
                if ending == "reset":
                    peers.reset(peer)
        await forgotten(server)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
async def test_cancelled_on_the_way(loop, turns):
    # Wherever the handshake is cancelled, the connection ends, and its protocol and transport are freed.
    made = []

    def factory():
        protocol = Recorder(loop)
        made.append(weakref.ref(protocol))
        return protocol

    with peers.listening() as listener:
        connecting = loop.create_task(
            loop.create_connection(
                factory, *listener.getsockname(), ssl=tls.client_context(), server_hostname=tls.NAME
            )
        )
        await loops.turns(turns)
        assert not connecting.done()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        del connecting
        if made:
            peer, _ = await loop.sock_accept(listener)
            with peer:
                while await asyncio.wait_for(loop.sock_recv(peer, 65536), 5):
                    pass
        await asyncio.sleep(0.005)
    gc.collect()
    assert [reference for reference in made if reference()] == []


test_cancelled_on_the_way = pytest.mark.not_on(
    "asyncio", "uvloop", reason="cancelled before the handshake begins, the connection goes on for a minute"
)(test_cancelled_on_the_way)


async def test_a_server_closed_in_the_middle_of_a_handshake(loop):
    async with serving(loop, lambda: Recorder(loop), ssl=tls.server_context()) as server:
        with socket.create_connection(server.address) as peer:
            await asyncio.sleep(0.005)
            server.server.close()
            peer.sendall(b"\x16\x03\x01")
            await asyncio.sleep(0.005)
        await forgotten(server)


@pytest.mark.not_on("asyncio", "uvloop", reason="the socket is left to the garbage collector")
@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("value", [0, -1.5])
async def test_timeouts_must_be_positive(loop, name, value):
    with peers.listening() as listener, pytest.raises(ValueError, match=f"{name} should be a positive"):
        await connect(loop, listener.getsockname(), **{name: value})


async def test_arguments_that_do_not_go_together(loop):
    for options in (
        {"ssl_handshake_timeout": 1},
        {"ssl_shutdown_timeout": 1},
        {"server_hostname": "localhost"},
    ):
        with pytest.raises(ValueError, match=r"only|ssl"):
            await loop.create_connection(lambda: Recorder(loop), "127.0.0.1", 1, **options)
    with pytest.raises(TypeError):
        await loop.create_server(lambda: Recorder(loop), "127.0.0.1", 0, ssl=True)
    near, far = socket.socketpair()
    with near, far, pytest.raises(ValueError, match="server_hostname"):
        await loop.create_connection(lambda: Recorder(loop), sock=near, ssl=True)


@pytest.mark.parametrize("server_side", [False, True])
async def test_a_protocol_that_fails_in_connection_made(loop, unhandled, server_side):
    class Failing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ZeroDivisionError

    kinds = (Recorder, Failing) if server_side else (Failing, Recorder)
    async with serving(loop, lambda: kinds[1](loop), ssl=tls.server_context()) as server:
        near = kinds[0](loop)
        connecting = loop.create_connection(
            lambda: near, *server.address, ssl=tls.client_context(), server_hostname=tls.NAME
        )
        if server_side:
            with contextlib.suppress(ConnectionError):
                await connecting
            far = await server.accepted()
            assert isinstance(await far.lost, ZeroDivisionError)
            if near.calls:
                await near.lost
        else:
            with pytest.raises(ZeroDivisionError):
                await connecting
            assert isinstance(await near.lost, ZeroDivisionError)
            await forgotten(server)
    assert isinstance(unhandled.take_one().exception, ZeroDivisionError)


async def test_closed_within_connection_made(loop):
    class Brief(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"brief")
            transport.close()

    async with tls.connected(loop, lambda: Recorder(loop), lambda: Brief(loop)) as (near, far):
        assert await near.received(5) == b"brief"
        assert await near.lost is None
        assert await far.lost is None


async def test_aborted_within_connection_made(loop):
    class Brief(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.abort()

    async with serving(loop, lambda: Brief(loop), ssl=tls.server_context()) as server:
        with contextlib.suppress(ConnectionError):
            _, client = await connect(loop, server.address)
            await client.lost
        assert await (await server.accepted()).lost is None
