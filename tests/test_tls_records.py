"""TLS whose records come cut or several at a time: each that is whole is delivered at once."""

import random
import socket
import ssl

import pytest
from support import peers, tls
from support.protocols import Buffered, Recorder, serving

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
SIZES = (1, 2, 17, 1000, 16_384)


class Lending(Buffered):
    """Returns a memoryview: asyncio slices the buffer, and a slice of a bytearray would be a copy."""

    def get_buffer(self, sizehint):
        return memoryview(self.buffer)


RECEIVERS = {
    "joined": Recorder,
    "buffer700": lambda loop: Lending(loop, 700),
    "buffer16384": lambda loop: Lending(loop, 16_384),
}


class Own(ssl.SSLObject):
    """A class of the program's that gives less than it has."""

    def read(self, size=1024, buffer=None):
        return super().read(min(size, 1000), buffer)


@pytest.mark.parametrize("own", [False, True], ids=["ssl", "own"])
@pytest.mark.parametrize("receiver", RECEIVERS)
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
async def test_each_whole_record_is_delivered_at_once(loop, version, receiver, own):
    context = tls.server_context()
    if own:
        context.sslobject_class = Own
    engine = tls.Engine(context=tls.client_context(version=version))
    chance = random.Random(f"{version.name} {receiver}")
    whole = b""
    async with serving(loop, lambda: RECEIVERS[receiver](loop), ssl=context) as served:
        with socket.create_connection(served.address) as sock:
            await loop.run_in_executor(None, engine.shake_hands, sock)
            sock.setblocking(False)
            far = await served.accepted()
            for step in range(30):
                plain = [
                    peers.payload(chance.choice(SIZES), seed=10 * step + number)
                    for number in range(chance.randint(1, 4))
                ]
                records = [engine.encrypt(data) for data in plain]
                # All but a part of the last one, and then that.
                part = chance.choice([0, 1, 4, 5, 6, chance.randint(0, len(records[-1]) - 1)])
                await loop.sock_sendall(sock, b"".join(records[:-1]) + records[-1][:part])
                whole += b"".join(plain[:-1])
                assert await far.received(len(whole)) == whole
                await loop.sock_sendall(sock, records[-1][part:])
                whole += plain[-1]
                assert await far.received(len(whole)) == whole


# What the session refuses by the header alone: a version that never was, more bytes than a record has.
REFUSED = {"version": b"\x17\x03\x09\x01\x00", "length": b"\x17\x03\x03\x48\x00"}


@pytest.mark.parametrize("header", REFUSED)
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
async def test_a_bad_header_is_refused_before_the_rest_has_come(loop, version, header):
    engine = tls.Engine(context=tls.client_context(version=version))
    async with serving(loop, lambda: Recorder(loop), ssl=tls.server_context()) as served:
        with socket.create_connection(served.address) as sock:
            await loop.run_in_executor(None, engine.shake_hands, sock)
            far = await served.accepted()
            sock.sendall(engine.encrypt(b"good"))
            assert await far.received(4) == b"good"
            sock.sendall(REFUSED[header])
            assert isinstance(await far.lost, ssl.SSLError)
    assert far.data == b"good"
