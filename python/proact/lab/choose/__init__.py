"""Which I/O model to use, for somebody's own numbers: one sentence, from what was measured and nothing else.

- ``question.py``  the three questions, and the workload that asks the same
- ``points.py``    what was measured: loads with enough undisturbed repeats, and those around a question
- ``answer.py``    the models that win there, and the sentence
- ``view.py``      the answer in a terminal, as JSON, and as a part of a page
- ``sources.py``   where results come from: a file, the reference that is shipped, a measurement now
"""
