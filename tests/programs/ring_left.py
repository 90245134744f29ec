"""A ring with an operation in flight is left behind, in the way the argument says; is its buffer free?"""

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
    case "dropped by another thread":  # which can't make the kernel let go: the memory is lost, not freed
        thread = threading.Thread(target=made.clear)
        thread.start()
        thread.join()
        gc.collect()
        print(is_free())
        far.send(b"late")
    case "at exit":
        print(is_free())
