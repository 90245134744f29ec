"""Why there is no ring, by `proact.Ring` and by the report that `proact doctor` shows."""

import json

import proact

try:
    proact.Ring().close()
except OSError as error:
    said = [error.errno, error.strerror]
else:
    said = []
print(json.dumps({"ring": said, "report": proact.engine_report()["engines"]["io_uring"]}))
