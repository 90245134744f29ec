"""pytest-asyncio: this hook gives every asyncio test proact's loop."""

import proact


def pytest_asyncio_loop_factories(config: object, item: object) -> dict[str, object]:
    return {"proact": proact.new_event_loop}
