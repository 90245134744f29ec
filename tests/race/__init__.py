"""`make race`: random calls from many threads on loops that run, stand still, change threads and close.

`field.py` is what the threads share and what must hold in the end; `actions.py` has the calls; `run.py` runs
rounds. A seed determines what each thread does; the order between threads is the machine's, so a round that
failed may need several tries.
"""
