"""Peers that reset the connection: it ends once, with the error that asyncio would give."""

import asyncio

import pytest
from support import loops, peers
from support.protocols import Buffered, Recorder, facing

KINDS = pytest.mark.parametrize("kind", [Recorder, Buffered])


@KINDS
async def test_while_idle(loop, kind):
    async with facing(loop, lambda: kind(loop)) as (client, peer):
        await asyncio.sleep(0.002)
        peers.reset(peer)
        assert isinstance(await client.lost, ConnectionResetError)
        assert client.calls == ["connection_made", "connection_lost"]
        assert client.transport.is_closing()


async def test_in_the_middle_of_a_large_write(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        client.transport.write(bytes(8 << 20))
        await loops.turns()
        peers.receive(peer, 10_000)
        peers.reset(peer)
        exc = await client.lost
        assert exc is None or isinstance(exc, (ConnectionResetError, BrokenPipeError))
        assert client.transport.get_write_buffer_size() == 0
        assert client.calls.count("connection_lost") == 1


async def test_while_a_closed_transport_still_sends(loop):
    # close() waits until the buffer is sent; if that has become impossible, the connection ends anyway.
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        client.transport.write(bytes(8 << 20))
        client.transport.close()
        await loops.turns()
        peers.reset(peer)
        exc = await asyncio.wait_for(client.lost, 5)
        assert exc is None or isinstance(exc, (ConnectionResetError, BrokenPipeError))


async def test_while_reading_is_paused_and_data_waits_to_be_sent(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        client.transport.pause_reading()
        client.transport.write(bytes(8 << 20))
        await loops.turns()
        peers.reset(peer)
        exc = await asyncio.wait_for(client.lost, 5)
        assert isinstance(exc, (ConnectionResetError, BrokenPipeError))


@pytest.mark.not_on("uvloop", reason="write() raises RuntimeError on a closed handle")
async def test_writing_goes_nowhere_then_and_says_nothing_worse(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        client.transport.pause_reading()
        peers.reset(peer)
        await asyncio.sleep(0.002)
        for _ in range(20):
            client.transport.write(b"into the void")
            await asyncio.sleep(0)
        exc = await asyncio.wait_for(client.lost, 5)
        assert isinstance(exc, (ConnectionResetError, BrokenPipeError))


async def test_after_data_that_was_received(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        peer.sendall(b"before the end")
        await client.received(14)
        peers.reset(peer)
        assert isinstance(await client.lost, ConnectionResetError)
        assert client.data == b"before the end"


async def test_many_resets_at_once_while_others_go_on(loop):
    from support.protocols import Echo, serving

    async with serving(loop, lambda: Echo(loop)) as server:
        import socket

        _, client = await loop.create_connection(lambda: Recorder(loop), *server.address)
        for round_ in range(5):
            socks = [socket.create_connection(server.address) for _ in range(20)]
            for sock in socks:
                sock.sendall(bytes(1000))
            for sock in socks:
                peers.reset(sock)
            client.transport.write(b"%d" % round_)
            await client.received(round_ + 1)
        assert client.data == b"01234"
        await client.close()
        for protocol in server.protocols[1:]:
            exc = await protocol.lost
            assert exc is None or isinstance(exc, (ConnectionResetError, BrokenPipeError))
