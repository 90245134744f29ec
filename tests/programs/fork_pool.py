"""Uses a pool of forked workers from a running loop; each worker runs its own loop."""

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import under_test


async def square(number):
    await asyncio.sleep(0.001)
    return number * number


def work(number):
    asyncio._set_running_loop(None)
    return under_test.run(square(number))


async def main():
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        print(await asyncio.gather(*(loop.run_in_executor(pool, work, number) for number in range(5))))


under_test.run(main())
