"""A test that pytest-asyncio runs on proact, because of the hook in conftest.py."""

import asyncio

import pytest

import proact


@pytest.mark.asyncio
async def test_streams() -> None:
    assert isinstance(asyncio.get_running_loop(), proact.EventLoop)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
