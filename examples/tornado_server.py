"""tornado: its IOLoop uses the running asyncio loop."""

import asyncio
import os

from tornado import web

import proact


class Where(web.RequestHandler):
    def get(self) -> None:
        self.write(repr(asyncio.get_running_loop()))


async def main() -> None:
    app = web.Application([("/", Where)])
    app.listen(int(os.environ.get("PORT", "8000")), "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        proact.run(main())
    except KeyboardInterrupt:
        pass
