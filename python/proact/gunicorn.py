"""A worker for gunicorn: `gunicorn app:app -k proact.gunicorn.ProactWorker` (`pip install uvicorn-worker`).

gunicorn imports its worker class by name, which makes it the one server that needs a class of proact's. This
file must know nothing of proact but the name of `new_event_loop`.
"""

from typing import Any, ClassVar

try:
    from uvicorn_worker import UvicornWorker
except ModuleNotFoundError as error:
    if error.name != "uvicorn_worker":
        raise
    raise ModuleNotFoundError(
        "proact.gunicorn needs uvicorn's worker: pip install uvicorn-worker", name=error.name
    ) from None

__all__ = ["ProactWorker"]


class ProactWorker(UvicornWorker):  # type: ignore[misc]  # the package ships no types where it is not installed
    """uvicorn's worker, on a loop of `proact.new_event_loop`; `PROACT_ENGINE` chooses the engine."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = UvicornWorker.CONFIG_KWARGS | {"loop": "proact:new_event_loop"}
