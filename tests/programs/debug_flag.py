"""Prints whether a new loop is in debug mode."""

import under_test

loop = under_test.new_event_loop()
print(loop.get_debug())
loop.close()
