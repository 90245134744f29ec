"""A static-file HTTP server with ranges and conditional requests: `PORT=8000 FOLDER=. static_server.py`."""

import asyncio
import os
import re
from email.utils import formatdate
from mimetypes import guess_type
from urllib.parse import unquote

import proact

ROOT = os.path.realpath(os.environ.get("FOLDER", ".")) + "/"


def plan(status: os.stat_result, request: str) -> tuple[str, list[str], range]:
    headers = {key.lower(): value for key, value in re.findall(r"(?m)^([\w-]+): *(.*?) *\r$", request)}
    size, date = status.st_size, formatdate(status.st_mtime, usegmt=True)
    tag = f'"{status.st_mtime_ns:x}-{size:x}"'
    fields = [f"ETag: {tag}", f"Last-Modified: {date}", "Accept-Ranges: bytes"]
    known = headers.get("if-none-match", tag if headers.get("if-modified-since") == date else "")
    if tag in known or known == "*":
        return "304 Not Modified", fields, range(0)
    asked = re.fullmatch(r"bytes=(?=.*\d)(\d*)-(\d*)", headers.get("range", ""))
    if not asked or headers.get("if-range", tag) not in (tag, date):
        return "200 OK", [*fields, f"Content-Length: {size}"], range(size)
    part = range(size)[int(asked[1] or "-" + asked[2]) : int(asked[2]) + 1 if all(asked.groups()) else size]
    if not part:
        return "416 Range Not Satisfiable", [f"Content-Range: bytes */{size}", "Content-Length: 0"], part
    fields += [f"Content-Range: bytes {part.start}-{part.stop - 1}/{size}", f"Content-Length: {len(part)}"]
    return "206 Partial Content", fields, part


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while match := re.match(r"(GET|HEAD) (/[^ ?]*)", (await reader.readuntil(b"\r\n\r\n")).decode()):
            path = os.path.normpath(ROOT + unquote(match[2]))  # noqa: ASYNC240 (only computes)
            async with proact.open(path if path.startswith(ROOT) else "", "rb", 0) as file:
                line, fields, part = plan(await proact.fs.stat(file.fileno()), match.string)
                fields.append(f"Content-Type: {guess_type(path)[0] or 'application/octet-stream'}")
                count = len(part) if match[1] == "GET" else 0
                body = await file.pread(count, part.start) if count <= 65536 else b""
                writer.write("\r\n".join([f"HTTP/1.1 {line}", *fields, "\r\n"]).encode() + body)
                sent = len(body) or (count and await proact.fs.sendfile(writer, file, part.start, count))
            if sent < count or re.search(r"(?i) HTTP/1\.0\r|\nconnection: *close", match.string):
                break
            await writer.drain()
    except (OSError, ValueError):
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    except (EOFError, asyncio.LimitOverrunError):
        pass
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", int(os.environ.get("PORT", "8000")))
    await server.serve_forever()


proact.run(main())
