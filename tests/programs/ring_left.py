"""Leaves a ring with an operation in flight, as the argument says; prints whether its buffer is free."""

import gc
import socket
import sys
import threading

import proact

near, far = socket.socketpair()
buffer = bytearray(10)
made = [proact.Ring(8)]
made[0].recv(near, buffer)
made[0].submit()


def is_free() -> bool:
    try:
        buffer.append(0)
    except BufferError:
        return False
    return True


match sys.argv[1]:
    case "dropped":
        made.clear()
        print(is_free())
    case "dropped by another thread":  # the kernel keeps the memory, so it is leaked, not freed
        thread = threading.Thread(target=made.clear)
        thread.start()
        thread.join()
        gc.collect()
        print(is_free())
        far.send(b"late")
    case "at exit":
        print(is_free())
