"""Gets a socket over the Unix socket FD, reads it to its end, and prints the bytes: `take_over.py FD`."""

import socket
import sys

with socket.socket(fileno=int(sys.argv[1])) as channel:
    print("ready", flush=True)
    _, [fd], _, _ = socket.recv_fds(channel, 1, 1)
with socket.socket(fileno=fd) as sock:
    sock.setblocking(True)
    sock.settimeout(10)
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
print(data.decode())
