"""FastAPI under uvicorn. On the command line: uvicorn uvicorn_fastapi:app --loop proact:new_event_loop"""

import asyncio
import os

import uvicorn
from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def where() -> dict[str, str]:
    return {"loop": repr(asyncio.get_running_loop())}


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")), loop="proact:new_event_loop")
