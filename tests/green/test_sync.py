"""Locks, queues and pools of greenlets: order, timeouts, and that nothing is lost with a killed greenlet."""

import asyncio
import queue
import threading

import pytest

green = pytest.importorskip("proact.green")
Line = pytest.importorskip("proact.green.waiting").Line


def turns(count=3):
    for _ in range(count):
        green.sleep(0)


def interrupt_next(g):
    """Kill a greenlet before anything that is scheduled after this."""
    g.hub.loop.call_soon(g._interrupt, green.GreenletExit())


def test_event(inside):
    def main():
        event = green.Event()
        assert not event.wait(0.001)
        waiting = [green.spawn(event.wait) for _ in range(3)]
        turns()
        event.set()
        assert [g.get() for g in waiting] == [True] * 3
        assert event.wait()
        event.clear()
        assert not event.is_set()

    inside(main)


def test_event_set_by_a_thread(inside):
    def main():
        event = green.Event()
        thread = threading.Timer(0.005, event.set)
        thread.start()
        assert event.wait(20)
        thread.join()

    inside(main)


def test_event_set_while_a_wait_begins(inside):
    class SetMeanwhile(green.Event):
        """Another thread sets it just after `wait` has looked at the flag."""

        @property
        def _flag(self):
            before = self.flag
            if self.sets:
                self.sets = False
                thread = threading.Thread(target=self.set)
                thread.start()
                thread.join()
            return before

        @_flag.setter
        def _flag(self, flag):
            self.flag = flag

        sets = False

    def main():
        event = SetMeanwhile()
        event.sets = True
        assert event.wait(20)
        assert event.is_set()
        assert not len(event._line)

    inside(main)


def test_a_line_woken_by_many_threads():
    line, over, woken, failed = Line(), threading.Event(), [], []

    class Waiting:
        def wake(self):
            woken.append(self)

    def work():
        try:
            while not over.is_set():
                line.wake()
            while line.wake():
                pass
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    # The line is empty most of the time, so they compete for the last one.
    waiting = [Waiting() for _ in range(1000)]
    for one in waiting:
        line._waits.append(one)
    over.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(woken) == len(waiting)
    assert set(woken) == set(waiting)


def test_lock_is_given_in_order(inside):
    order = []

    def main():
        lock = green.Lock()

        def take(n):
            with lock:
                order.append(n)
                green.sleep(0)

        with lock:
            made = [green.spawn(take, n) for n in range(5)]
            turns()
            assert not lock.acquire(blocking=False)
            assert not lock.acquire(timeout=0.001)
        for g in made:
            g.join()
        assert order == [0, 1, 2, 3, 4]
        assert not lock.locked()
        with pytest.raises(RuntimeError):
            lock.release()

    inside(main)


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore"])
def test_a_killed_waiter_loses_no_lock(spawned, kind):
    def main():
        lock = getattr(green, kind)()
        lock.acquire()
        first, second = green.spawn(lock.acquire), green.spawn(lambda: lock.acquire() and lock.release())
        turns()
        interrupt_next(first)
        lock.release()  # given to the first one, which is killed before it goes on
        second.get(5)
        assert lock.acquire(timeout=5)

    spawned(main)


def test_rlock(inside):
    def main():
        lock = green.RLock()
        with lock, lock:
            other = green.spawn(lock.acquire, True, 0.001)
            assert other.get() is False
            with pytest.raises(RuntimeError):
                green.spawn(lock.release).get()
        assert not lock.locked()

    inside(main)


def test_semaphore(inside):
    def main():
        semaphore = green.Semaphore(2)
        running, most = [], []

        def work():
            with semaphore:
                running.append(1)
                most.append(len(running))
                green.sleep(0)
                running.pop()

        for g in [green.spawn(work) for _ in range(10)]:
            g.get()
        assert max(most) == 2
        with pytest.raises(ValueError):
            green.Semaphore(-1)
        bounded = green.BoundedSemaphore(1)
        with pytest.raises(ValueError):
            bounded.release()

    inside(main)


def test_condition(inside):
    def main():
        condition = green.Condition()
        items = []

        def consume():
            with condition:
                condition.wait_for(lambda: items)
                return items.pop()

        made = [green.spawn(consume) for _ in range(3)]
        turns()
        for n in range(3):
            with condition:
                items.append(n)
                condition.notify()
            green.sleep(0)
        assert sorted(g.get() for g in made) == [0, 1, 2]
        with condition:
            assert not condition.wait(0.001)
            assert not condition.wait_for(lambda: False, 0.001)
        with pytest.raises(RuntimeError):
            condition.wait()
        with pytest.raises(RuntimeError):
            condition.notify()

    inside(main)


def test_condition_takes_its_lock_again_when_killed(spawned):
    def main():
        condition = green.Condition()
        owned = []

        def wait():
            with condition:
                try:
                    condition.wait()
                finally:
                    owned.append(condition._lock._is_owned())

        g = green.spawn(wait)
        turns()
        with condition:
            g.kill(block=False)
            turns()
            assert owned == []
        g.join()
        assert owned == [True]
        assert not condition._lock.locked()

    spawned(main)


def test_queue(inside):
    def main():
        q = green.Queue(2)
        got = []

        def consume():
            while (item := q.get()) is not None:
                got.append(item)
                q.task_done()

        g = green.spawn(consume)
        for n in range(20):
            q.put(n)
        q.join()
        assert got == list(range(20))
        q.put(None)
        g.join()
        q.put(1)
        q.put(2)
        assert q.full()
        with pytest.raises(queue.Full):
            q.put(3, timeout=0.001)
        with pytest.raises(queue.Full):
            q.put_nowait(3)
        assert (q.get(), q.get_nowait()) == (1, 2)
        with pytest.raises(queue.Empty):
            q.get(timeout=0.001)
        with pytest.raises(queue.Empty):
            q.get_nowait()

    inside(main)


def test_other_queues(inside):
    def main():
        last, least = green.LifoQueue(), green.PriorityQueue()
        for n in (2, 1, 3):
            last.put(n)
            least.put(n)
        assert [last.get() for _ in range(3)] == [3, 1, 2]
        assert [least.get() for _ in range(3)] == [1, 2, 3]

    inside(main)


def test_a_queue_of_the_programs(inside):
    """The methods that a subclass of `queue.Queue` replaces."""

    class Newest(green.Queue):
        def _init(self, maxsize):
            self.items = []

        def _qsize(self):
            return len(self.items)

        def _put(self, item):
            self.items[:] = [item]

        def _get(self):
            return self.items.pop()

    def main():
        q = Newest(1)
        q.put(1)
        assert q.full()
        putting = green.spawn(q.put, 2)
        turns()
        assert not putting.dead
        assert q.get() == 1
        assert q.get() == 2
        assert q.empty()

    inside(main)


async def test_an_rlock_belongs_to_the_task(loop):
    """What a task runs within what it waits for may take the lock again; another task waits."""
    lock = green.RLock()
    seen = []

    def inner():
        with lock:
            green.sleep(0)
            seen.append("inner")

    async def between():
        await green.run(inner)

    def outer():
        with lock:
            green.await_(between())
            green.sleep(0)
            seen.append("outer")

    async def another():
        await green.run(inner)

    async with asyncio.timeout(20):
        await asyncio.gather(green.run(outer), another())
    assert seen == ["inner", "outer", "inner"]


def test_a_killed_getter_loses_no_item(spawned):
    def main():
        q = green.Queue()
        first, second = green.spawn(q.get), green.spawn(q.get)
        turns()
        interrupt_next(first)
        q.put("item")
        assert second.get(5) == "item"

    spawned(main)


def test_pool(inside):
    def main():
        running, most = [], []

        def work(n):
            running.append(n)
            most.append(len(running))
            green.sleep(0)
            running.remove(n)
            return n * n

        pool = green.Pool(3)
        assert pool.map(work, range(10)) == [n * n for n in range(10)]
        assert max(most) == 3
        assert pool.apply(abs, -1) == 1
        with green.Pool() as unlimited:
            made = [unlimited.spawn(work, n) for n in range(5)]
        assert all(g.dead for g in made)
        with pytest.raises(KeyError), green.Pool(2) as pool:
            g = pool.spawn(green.sleep, 60)
            raise KeyError
        assert g.dead
        with pytest.raises(ZeroDivisionError):
            pool.map(lambda n: 1 // n, [1, 0, 2, 3])
        assert pool.join(20)
        with pytest.raises(ValueError):
            green.Pool(0)

    inside(main)
