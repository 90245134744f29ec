"""FastAPI under gunicorn: gunicorn gunicorn_uvicorn:app -k proact.gunicorn.ProactWorker"""

import asyncio

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def where() -> dict[str, str]:
    return {"loop": repr(asyncio.get_running_loop())}
