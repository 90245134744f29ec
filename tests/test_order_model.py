"""The order of execution, found by hypothesis against a model of ten lines.

The model is asyncio's turn: first the callbacks that were ready when the turn began, then the timers that are
due, by deadline and then by age. Callbacks that these schedule wait for the next turn. Deadlines are seconds
ago or hours ahead, so nothing depends on the speed of the machine.

A callback has a number and does one action, a pair (kind, value). A worked sequence of rules:

1. `call_soon(("overdue", 3))`: callback 0 is ready. Its action schedules a timer that was due 3 seconds ago.
2. `run(1)`: one turn. Callback 0 runs and schedules timer 1. Expected so far: [0].
3. `run(1)`: timer 1 is due, so it runs. Expected: [0, 1].

After each rule, the numbers that the loop ran have to equal the numbers that the model expects.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support import loops

# asyncio's heap is not stable, so on asyncio no two deadlines are equal.
STABLE = loops.REFERENCE != "asyncio"
AGO = st.integers(1, 1000)
INDEX = st.integers(0, 1_000_000)

# The action of a callback, besides noting that it ran.
ACTION = st.one_of(
    st.just(("nothing", 0)),
    st.tuples(st.just("soon"), st.just(0)),
    st.tuples(st.just("overdue"), AGO),
    st.tuples(st.just("cancel"), INDEX),
)


class Turns(RuleBasedStateMachine):
    def __init__(self, new_loop):
        super().__init__()
        self.loop = new_loop()
        self.now = self.loop.time()
        self.count = 0
        # The real side: what ran, and every handle by its number.
        self.ran = []
        self.handles = []
        # The model: (number, action) ready; {number: (ago, number, action)} timers; what should have run.
        self.ready = []
        self.timers = {}
        self.agos = set()
        self.expected = []
        self.far = []

    def teardown(self):
        self.loop.close()

    def deadline(self, ago):
        """A deadline that long ago; on a loop without a stable order, one that no other timer has."""
        while not STABLE and ago in self.agos:
            ago += 1
        self.agos.add(ago)
        return ago

    # The real side.

    def callback(self, number, action):
        self.ran.append(number)
        kind, value = action
        if kind == "soon":
            self.handles.append(self.loop.call_soon(self.callback, len(self.handles), ("nothing", 0)))
        elif kind == "overdue":
            child = len(self.handles)
            self.handles.append(self.loop.call_at(self.now - value, self.callback, child, ("nothing", 0)))
        elif kind == "cancel" and self.handles:
            self.handles[value % len(self.handles)].cancel()

    # The model.

    def model_turn(self):
        due = sorted(self.timers.values(), key=lambda timer: (-timer[0], timer[1]))
        batch = self.ready + [(number, action) for _, number, action in due]
        self.ready, self.timers = [], {}
        cancelled = set()
        for number, (kind, value) in batch:
            if number in cancelled:
                continue
            self.expected.append(number)
            if kind == "soon":
                self.ready.append((self.count, ("nothing", 0)))
                self.count += 1
            elif kind == "overdue":
                self.timers[self.count] = (value, self.count, ("nothing", 0))
                self.count += 1
            elif kind == "cancel" and self.count:
                cancelled.add(value % self.count)
                self.model_cancel(value % self.count)

    def model_cancel(self, number):
        self.ready = [entry for entry in self.ready if entry[0] != number]
        self.timers.pop(number, None)

    # What can happen between two turns.

    def add(self, handle):
        self.handles.append(handle)
        self.count += 1
        return self.count - 1

    @rule(action=ACTION)
    def call_soon(self, action):
        if action[0] == "overdue":
            action = (action[0], self.deadline(action[1]))
        number = self.add(self.loop.call_soon(self.callback, self.count, action))
        self.ready.append((number, action))

    @rule(action=ACTION)
    def call_soon_threadsafe(self, action):
        if action[0] == "overdue":
            action = (action[0], self.deadline(action[1]))
        number = self.add(self.loop.call_soon_threadsafe(self.callback, self.count, action))
        self.ready.append((number, action))

    @rule(ago=AGO, action=ACTION)
    def overdue_timer(self, ago, action):
        if action[0] == "overdue":
            action = (action[0], self.deadline(action[1]))
        ago = self.deadline(ago)
        number = self.add(self.loop.call_at(self.now - ago, self.callback, self.count, action))
        self.timers[number] = (ago, number, action)

    @rule(hours=st.integers(1, 100))
    def far_timer(self, hours):
        self.far.append(
            self.add(self.loop.call_later(hours * 3600, self.callback, self.count, ("nothing", 0)))
        )

    @rule(index=INDEX)
    @precondition(lambda self: self.count)
    def cancel(self, index):
        number = index % self.count
        self.handles[number].cancel()
        assert self.handles[number].cancelled() or number in self.ran
        self.model_cancel(number)

    @rule(turns=st.integers(1, 3))
    def run(self, turns):
        for _ in range(turns):
            # `stop` is the last of the ready callbacks; the turn that it ends is run to its end.
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
            self.model_turn()

    @invariant()
    def ran_as_expected(self):
        assert self.ran == self.expected


# conftest.py freezes what exists before the first test, so Hypothesis finds no owner of its own generator.
@pytest.mark.filterwarnings("ignore:It looks like `register_random`")
@pytest.mark.not_on("uvloop", reason="a libuv turn runs its timers before the ready callbacks")
def test_order_of_execution(new_loop):
    run_state_machine_as_test(
        lambda: Turns(new_loop),
        settings=settings(
            max_examples=60, stateful_step_count=30, deadline=None, database=None, derandomize=True
        ),
    )
