"""Files for asyncio programs: true asynchronous ones on a loop of proact, threads on any other loop."""
