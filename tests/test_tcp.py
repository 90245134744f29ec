"""TCP transports: bytes there and back, the order of a protocol's calls, facts about a transport."""

import asyncio
import select
import socket

import pytest
from support import loops, peers
from support.protocols import Buffered, Echo, HalfOpen, Recorder, connected, facing, heard, serving


@pytest.mark.parametrize("size", [0, 1, 1024, 65536, 5 << 20])
async def test_echo(loop, size):
    data = peers.payload(size)
    async with connected(loop, lambda: Recorder(loop), lambda: Echo(loop)) as (client, server):
        client.transport.write(data)
        client.transport.write_eof()
        # The server closes after the end of file, and not before everything is echoed.
        assert await client.lost is None
        assert await server.lost is None
        assert peers.digest(server.data) == peers.digest(data)
        assert peers.digest(client.data) == peers.digest(data)


@pytest.mark.parametrize("size", [1, 100, 5000])
async def test_echo_of_many_small_messages(loop, size):
    async with connected(loop, lambda: Recorder(loop), lambda: Echo(loop)) as (client, _):
        data = peers.payload(size * 300)
        for start in range(0, len(data), size):
            client.transport.write(data[start : start + size])
            if start % (size * 10) == 0:
                await asyncio.sleep(0)
        assert await client.received(len(data)) == data


async def test_ping_pong(loop):
    async with connected(loop, lambda: Recorder(loop), lambda: Echo(loop)) as (client, _):
        for number in range(1, 301):
            client.transport.write(b"%4d" % number)
            assert (await client.received(4 * number))[-4:] == b"%4d" % number


async def test_bulk_after_small_messages_and_back(loop):
    # An engine may receive small messages and bulk in two ways and switch between them: nothing is lost in
    # between.
    async with connected(loop, lambda: Recorder(loop), lambda: Echo(loop)) as (client, _):
        sent = bytearray()
        for round_, size in enumerate([10, 10, 200_000, 10, 1_000_000, 1, 1, 1, 300_000, 5]):
            data = peers.payload(size, seed=round_)
            sent += data
            client.transport.write(data)
            assert await client.received(len(sent)) == sent


async def test_three_hundred_connections(loop):
    count = 300
    async with serving(loop, lambda: Echo(loop)) as server:
        clients = []
        for start in range(0, count, 50):  # in batches: the backlog is 100
            made = [loop.create_connection(lambda: Recorder(loop), *server.address) for _ in range(50)]
            clients += [client for _, client in await asyncio.gather(*made)]
            await server.accepted(start + 49)
        for number, client in enumerate(clients):
            client.transport.write(b"%06d" % number * 100)
        for number, client in enumerate(clients):
            assert await client.received(600) == b"%06d" % number * 100
        for client in clients:
            assert await client.close() is None
        for protocol in server.protocols:
            assert await protocol.lost is None


async def test_a_protocol_is_called_in_order(loop):
    order = ["connection_made", "data_received", "eof_received", "connection_lost"]
    async with connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (client, server):
        client.transport.write(b"data")
        client.transport.close()
        assert await server.lost is None
        assert await client.lost is None
        assert server.calls == order
        assert server.data == b"data"
        # An end that closes itself does not get eof_received.
        assert client.calls == ["connection_made", "connection_lost"]
        await asyncio.sleep(0.005)
        assert server.calls == order  # and nothing comes after connection_lost


async def test_connection_made_comes_before_create_connection_returns(loop):
    async with serving(loop, lambda: Recorder(loop)) as server:
        transport, client = await loop.create_connection(lambda: Recorder(loop), *server.address)
        assert client.calls == ["connection_made"]
        assert client.transport is transport
        await client.close()


async def test_close_does_not_call_back_from_within(loop):
    async with connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (client, _):
        client.transport.close()
        assert not client.lost.done()
        assert await client.lost is None


async def test_what_was_sent_before_anyone_listens_is_delivered(loop):
    async with serving(loop, lambda: Recorder(loop)) as server:
        with socket.create_connection(server.address) as sock:
            sock.sendall(b"early")
        protocol = await server.accepted()
        assert await protocol.lost is None
        assert protocol.data == b"early"


async def test_nothing_is_received_before_connection_made(loop):
    # Data that already waits must not overtake connection_made, however fast the engine receives it.
    async with serving(loop, lambda: Recorder(loop)) as server:
        socks = [socket.create_connection(server.address) for _ in range(20)]
        for sock in socks:
            sock.sendall(b"early")
            sock.close()
        for index in range(20):
            protocol = await server.accepted(index)
            await protocol.lost
            assert protocol.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]


async def test_half_close(loop):
    # The client has finished sending; the server goes on, since its eof_received returned true.
    async with connected(loop, lambda: Recorder(loop), lambda: HalfOpen(loop)) as (client, server):
        assert client.transport.can_write_eof() is True
        client.transport.write(b"question")
        client.transport.write_eof()
        await server.ended
        assert not server.transport.is_closing()
        for part in (b"an", b"sw", b"er"):
            server.transport.write(part)
            await asyncio.sleep(0.001)
        assert await client.received(6) == b"answer"
        assert not client.lost.done()
        server.transport.close()
        assert await client.lost is None


async def test_write_eof_waits_for_what_was_written(loop):
    data = peers.payload(3 << 20)
    async with facing(loop, lambda: HalfOpen(loop)) as (client, peer):
        client.transport.write(data)
        client.transport.write_eof()
        client.transport.write_eof()  # a second one is harmless
        assert await heard(loop, peer) == data
        with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof"):
            client.transport.write(b"more")
        # The other direction is open.
        peer.sendall(b"back")
        assert await client.received(4) == b"back"


async def test_write_eof_after_close_is_harmless(loop):
    async with connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (client, _):
        client.transport.close()
        client.transport.write_eof()
        await client.lost


async def test_close_sends_what_was_written_first(loop):
    data = peers.payload(5 << 20)
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        client.transport.write(data)
        client.transport.close()
        assert client.transport.is_closing()
        await loops.turns(5)
        assert not client.lost.done()  # the data can't have left yet: nobody reads
        assert await heard(loop, peer) == data
        assert await client.lost is None


async def test_closing_twice_is_closing_once(loop):
    async with connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (client, _):
        client.transport.close()
        client.transport.close()
        client.transport.abort()
        assert await client.lost is None
        client.transport.close()
        client.transport.abort()
        await asyncio.sleep(0.002)
        assert client.calls.count("connection_lost") == 1


async def test_abort_throws_away_what_was_written(loop):
    data = bytes(5 << 20)
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        client.transport.write(data)
        await loops.turns()
        client.transport.abort()
        assert client.transport.is_closing()
        assert await client.lost is None
        assert client.transport.get_write_buffer_size() == 0
        assert len(await heard(loop, peer)) < len(data)


async def test_abort_overtakes_close(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, _):
        client.transport.write(bytes(5 << 20))
        client.transport.close()
        await loops.turns()
        assert not client.lost.done()
        client.transport.abort()
        assert await asyncio.wait_for(client.lost, 5) is None


async def test_closing_inside_data_received(loop):
    class Once(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(b"bye")
            self.transport.close()

    async with facing(loop, lambda: Once(loop)) as (client, peer):
        peer.sendall(b"x")
        assert await client.lost is None
        assert await heard(loop, peer) == b"bye"
        assert client.calls == ["connection_made", "data_received", "connection_lost"]


async def test_aborting_inside_connection_made(loop):
    class Shy(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.abort()

    async with serving(loop, lambda: Shy(loop)) as server:
        with socket.create_connection(server.address) as sock:
            protocol = await server.accepted()
            assert await protocol.lost is None
            assert protocol.calls == ["connection_made", "connection_lost"]
            assert await heard(loop, sock) == b""


async def test_extra_info(loop):
    async with connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (client, server):
        here, there = client.transport, server.transport
        assert here.get_extra_info("peername") == there.get_extra_info("sockname")
        assert here.get_extra_info("sockname") == there.get_extra_info("peername")
        assert here.get_extra_info("no such thing") is None
        assert here.get_extra_info("no such thing", "default") == "default"
        for transport in (here, there):
            sock = transport.get_extra_info("socket")
            assert sock.family == socket.AF_INET
            assert sock.type == socket.SOCK_STREAM
            assert sock.getsockname() == transport.get_extra_info("sockname")
            assert sock.getpeername() == transport.get_extra_info("peername")
            assert sock.gettimeout() == 0
        name = here.get_extra_info("peername")
        await client.close()
        # Logs of a closed connection still name its peer.
        assert here.get_extra_info("peername") == name


async def test_a_peer_that_is_gone_has_no_name_and_no_default_takes_its_place(loop):
    with peers.tcp_pair() as (near, far):
        peers.reset(far)
        assert select.select([near], [], [], 10)[0], "no reset came"
        transport, _ = await loop.connect_accepted_socket(lambda: Recorder(loop), near)
        assert transport.get_extra_info("peername", "default") is None
        transport.abort()


async def test_the_socket_is_asyncio_s_view_of_one(loop):
    if loops.REFERENCE == "uvloop":
        pytest.skip("uvloop has a view of its own")
    async with connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (client, server):
        for transport in (client.transport, server.transport):
            sock = transport.get_extra_info("socket")
            assert isinstance(sock, asyncio.trsock.TransportSocket)
            assert not hasattr(sock, "recv")
            with pytest.raises(ValueError, match="0"):
                sock.settimeout(1)


async def test_nagle_is_off(loop):
    async with connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (client, server):
        for transport in (client.transport, server.transport):
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


@pytest.mark.not_on("uvloop", reason="its transports are no asyncio.Transport")
async def test_is_a_transport_of_asyncio_s(loop):
    async with connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (client, server):
        for transport in (client.transport, server.transport):
            assert isinstance(transport, asyncio.Transport)
            assert isinstance(transport, asyncio.ReadTransport)
            assert isinstance(transport, asyncio.WriteTransport)


async def test_repr_never_fails(loop):
    async with connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (client, _):
        texts = [repr(client.transport)]
        client.transport.write(b"x")
        texts.append(repr(client.transport))
        client.transport.close()
        texts.append(repr(client.transport))
        await client.lost
        await asyncio.sleep(0)
        texts.append(repr(client.transport))
        assert all(text.startswith("<") for text in texts)
        assert "clos" in texts[2]
        assert "clos" in texts[3]


async def test_a_protocol_can_be_replaced(loop):
    async with facing(loop, lambda: Recorder(loop)) as (first, peer):
        transport = first.transport
        assert transport.get_protocol() is first
        peer.sendall(b"first")
        await first.received(5)
        second = Recorder(loop)
        transport.set_protocol(second)
        assert transport.get_protocol() is second
        peer.sendall(b"second")
        assert await second.received(6) == b"second"
        # The new protocol does not get connection_made for a connection that existed before.
        assert second.calls == ["data_received"]
        transport.close()
        assert await second.lost is None
        assert first.calls == ["connection_made", "data_received"]
        first.lost.set_result(None)


async def test_a_protocol_replaced_inside_data_received(loop):
    class Upgrade(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.set_protocol(after)

    after = Recorder(loop)
    async with facing(loop, lambda: Upgrade(loop)) as (before, peer):
        peer.sendall(b"x")
        await before.received(1)
        data = peers.payload(300_000)
        with peers.thread(peer.sendall, data):
            assert await after.received(len(data)) == data
        assert before.data == b"x"
        before.transport.close()
        await after.lost
        before.lost.set_result(None)


@pytest.mark.parametrize("order", ["to buffered", "from buffered"])
async def test_from_one_kind_of_protocol_to_the_other(loop, order):
    kinds = [lambda: Recorder(loop), lambda: Buffered(loop, 1000)]
    make, then = kinds if order == "to buffered" else kinds[::-1]
    async with facing(loop, make) as (first, peer):
        peer.sendall(b"first")
        assert await first.received(5) == b"first"
        second = then()
        first.transport.set_protocol(second)
        data = peers.payload(100_000)
        with peers.thread(peer.sendall, data):
            assert await second.received(len(data)) == data
        assert first.data == b"first"
        first.transport.close()
        await second.lost
        first.lost.set_result(None)


async def test_the_peer_closes_with_our_data_unread(loop):
    # A close with unread data is a reset on the wire: the connection ends once, with or without an error.
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        client.transport.write(b"unread")
        await asyncio.sleep(0.005)
        peer.close()
        exc = await client.lost
        assert exc is None or isinstance(exc, ConnectionError)
        assert client.calls.count("connection_lost") == 1


async def test_callbacks_run_in_the_context_of_the_connection(loop):
    import contextvars

    variable = contextvars.ContextVar("variable", default="unset")
    seen = {}

    class Protocol(Recorder):
        def call(self, name):
            super().call(name)
            seen[name] = variable.get()

    variable.set("at creation")
    async with facing(loop, lambda: Protocol(loop)) as (client, peer):
        variable.set("later")
        peer.sendall(b"x")
        await client.received(1)
        peer.shutdown(socket.SHUT_WR)
        await client.lost
    assert seen["connection_made"] == "at creation"
    assert seen["data_received"] == "at creation"
    assert seen["eof_received"] == "at creation"
