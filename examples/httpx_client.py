"""httpx, and every other client that uses the running loop: many requests at once."""

import asyncio
import os

import httpx

import proact


async def main() -> None:
    async with httpx.AsyncClient(base_url=os.environ.get("URL", "http://127.0.0.1:8000")) as client:
        answers = await asyncio.gather(*(client.get("/") for _ in range(10)))
    print(asyncio.get_running_loop(), [answer.status_code for answer in answers])


proact.run(main())
