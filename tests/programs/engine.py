"""Prints, as JSON, which engine a loop gets here, and the loop's report about it."""

import json

import proact

loop = proact.new_event_loop()
print(json.dumps({"engine": loop.engine, "info": loop.engine_info()}))
loop.close()
