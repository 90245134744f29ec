"""The application as a module, for servers that import it by name."""

import app as web

app, _ = web.make()
