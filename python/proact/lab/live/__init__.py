"""The laboratory in a browser: ``proact lab serve``. One local page, one run at a time.

- ``server.py``     the routes, and who may ask; on proact's own loop
- ``http.py``       HTTP/1.1 on a connection, parsed by httptools
- ``runs.py``       the run: a child process, what it has said so far, stopping it
- ``child.py``      that process: it measures, and tells each step in a line of JSON
- ``form.py``       from what the page sends to what is measured
- ``page.py``, ``live.js``   the page
"""
