"""Files for asyncio programs: true asynchronous ones on a loop of proact, threads on any other loop."""

from .buffered import BufferedFile
from .file import RawFile
from .opening import Opening, open
from .text import TextFile

__all__ = ["BufferedFile", "Opening", "RawFile", "TextFile", "open"]
