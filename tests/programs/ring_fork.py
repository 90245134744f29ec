"""A forked child tries to use its parent's ring; the parent's operation in flight completes all the same."""

import os
import socket

import proact

near, far = socket.socketpair()
buffer = bytearray(10)
ring = proact.Ring(8)
token = ring.recv(near, buffer)
ring.submit()
child = os.fork()
if child == 0:
    for use in (ring.submit, ring.wait, lambda: ring.cancel(token), lambda: ring.send(near, b"x")):
        try:
            use()
        except RuntimeError as error:
            print("refused" if "fork" in str(error) else f"unclear: {error}", flush=True)
    ring.close()
    with proact.Ring(8) as own, socket.create_server(("127.0.0.1", 0)) as listener:
        own.poll(listener, 1)
        print("own", len(own.wait(timeout=0)), flush=True)
    os._exit(0)
os.waitpid(child, 0)
far.send(b"parent")
[completion] = ring.wait(timeout=5)
print(bytes(buffer[: completion.result]).decode())
ring.close()
near.close()
far.close()
