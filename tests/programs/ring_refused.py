"""Prints why there is no ring, from `proact.Ring` and from the report that `proact doctor` shows."""

import json

import proact

try:
    proact.Ring().close()
except OSError as error:
    said = [error.errno, error.strerror]
else:
    said = []
print(json.dumps({"ring": said, "report": proact.engine_report()["engines"]["io_uring"]}))
