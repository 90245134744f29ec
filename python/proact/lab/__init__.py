"""The laboratory: the same work through every I/O model, measured on this machine.

This file only lists the modules; the command line reaches them as ``proact lab``.

- ``models/``            the servers, one file for each model
- ``registry.py``        which models there are, and what each needs
- ``serve.py``, ``load.py``   the two child processes of a measurement: a server and the load
- ``server_process.py``  starting a server and reading what it costs
- ``load_process.py``    starting the load and asking it for one pass
- ``measure.py``         one cell: a fresh server, a timed pass, a counting pass
- ``probe.py``           where a server's time goes: waiting, copying, asking, running its program
- ``run.py``             the runner: all cells, in random order
- ``results.py``         the shape of raw results
- ``environment.py``     the machine that the numbers belong to
- ``summary.py``, ``table.py``, ``export.py``   medians and conclusions; drawing them; CSV, comparisons
- ``report/``            a run as one HTML file
- ``live/``              a run chosen, started and watched in a browser
- ``asked.py``           reading what a person asked for
"""
