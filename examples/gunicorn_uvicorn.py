"""gunicorn with uvicorn's worker: gunicorn gunicorn_uvicorn:app -k gunicorn_uvicorn.ProactWorker"""

import asyncio

from fastapi import FastAPI
from uvicorn_worker import UvicornWorker


class ProactWorker(UvicornWorker):
    CONFIG_KWARGS = {"loop": "proact:new_event_loop"}  # noqa: RUF012 - the name and the kind are uvicorn's


app = FastAPI()


@app.get("/")
async def where() -> dict[str, str]:
    return {"loop": repr(asyncio.get_running_loop())}
