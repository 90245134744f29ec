"""dask.distributed: a LocalCluster whose scheduler, workers and client run on proact, over TCP."""

import asyncio
import contextlib
import time

import pytest
from distributed import Client, LocalCluster, utils
from distributed.client import FutureCancelledError
from support import loops
from support.peers import digest, payload


@pytest.fixture(scope="module", autouse=True)
def once():
    """dask keeps one thread for the life of the process."""
    utils._offload_executor.submit(int).result()


def where(dask_worker):
    return loops.identify(dask_worker.loop.asyncio_loop)


@contextlib.asynccontextmanager
async def cluster(**options):
    async with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address=None,
        asynchronous=True,
        silence_logs=50,
        **options,
    ) as made:
        async with Client(made, asynchronous=True) as client:
            yield made, client


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
async def test_local_cluster(loop, here):
    async with cluster() as (made, client):
        assert loops.identify(made.scheduler.loop.asyncio_loop) == here
        assert set((await client.run(where)).values()) == {here}
        squares = client.map(lambda n: n * n, range(200))
        assert await client.submit(sum, squares) == sum(n * n for n in range(200))
        data = payload(2_000_000)
        (sent,) = await client.scatter([data], broadcast=True)
        assert await client.submit(digest, sent) == digest(data)
        assert await client.gather(client.submit(lambda d: d[::-1], sent)) == data[::-1]
        slow = client.submit(time.sleep, 0.5)
        await asyncio.sleep(0.05)
        await slow.cancel()
        with pytest.raises(FutureCancelledError):
            await slow
        assert await client.submit(int, "7") == 7
