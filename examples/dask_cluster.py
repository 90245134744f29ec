"""dask.distributed: scheduler, workers and client on one loop; the tasks run in threads."""

import asyncio

from distributed import Client, LocalCluster, get_worker

import proact


def where() -> str:
    return repr(get_worker().loop.asyncio_loop)


async def main() -> None:
    options = {"processes": False, "asynchronous": True, "dashboard_address": None, "n_workers": 2}
    async with LocalCluster(**options) as cluster, Client(cluster, asynchronous=True) as client:
        squares = client.map(lambda number: number**2, range(100))
        total = client.submit(sum, squares)
        print(asyncio.get_running_loop(), await client.submit(where), await total)


if __name__ == "__main__":
    proact.run(main())
