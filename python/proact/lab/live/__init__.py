"""The laboratory in a browser: ``proact lab serve``. One local page, one run at a time.

- ``server.py``     the routes, and which requests are allowed; on proact's own loop
- ``http.py``       HTTP/1.1 on a connection, parsed by httptools
- ``runs.py``       the run: a child process, its events so far, stopping it
- ``child.py``      the child process: it measures, and reports each step in a line of JSON
- ``form.py``       turns the form that the page sends into a job
- ``page.py``, ``live.js``   the page
"""
