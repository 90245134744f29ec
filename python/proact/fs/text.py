"""Owns: the file object in text mode: decoding, line ends and their positions, over a `BufferedFile`.

What was decoded and not yet read lies in segments, one for each piece of the file. Each segment knows its
bytes and the state of the decoder before them. `tell` decodes the segment again to find a character's byte.
"""

from __future__ import annotations

import codecs
import functools
import io
import locale
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from proact import _core

from .file import size_of
from .places import Segment, cookie, parts, place
from .turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from types import TracebackType
    from typing import Self

    from .buffered import BufferedFile

__all__ = ["TextFile"]

_CHUNK = 8192
"""Bytes: how far `open()` reads a text ahead, at least."""

_SAME = "as it is"
"""A newline that was not named."""

_ANY_END = re.compile("\r\n|\r|\n")


class _Codec(NamedTuple):
    name: str
    decoder: Callable[[str], codecs.IncrementalDecoder]
    encoder: Callable[[str], codecs.IncrementalEncoder]


@functools.lru_cache(64)
def _codec(encoding: str, errors: str, newline: str | None) -> _Codec:
    # It checks the arguments as `open()` does, and raises the same errors.
    name = io.TextIOWrapper(io.BytesIO(), encoding, errors, newline).encoding
    found = codecs.lookup(name)
    return _Codec(name, found.incrementaldecoder, found.incrementalencoder)


class _Detached:
    """What a text file has in place of a buffer once it has none."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError("underlying buffer has been detached")


class TextFile(Turns):
    """A file in text mode."""

    # Nothing is held back here: what is written goes to the buffer at once.
    write_through = False
    _decoder: Any = None
    _encoder: codecs.IncrementalEncoder | None = None
    # The characters of the segments: `_used` of `_chars` were read, and `_texts` come after them.
    _chars = ""
    _used = 0
    _texts: list[str] | tuple[()] = ()
    _segments: list[Segment] | tuple[()] = ()
    # The iterator that has the lines just before `_used`, some of which it has not given out yet.
    _lines: _core.Lines[str] | None = None
    # Whether an iteration was interrupted by other calls.
    _mixed = False
    # Bytes for each character of the last piece.
    _ratio = 0.0

    def __init__(
        self,
        buffer: BufferedFile,
        mode: str,
        encoding: str,
        errors: str | None,
        newline: str | None,
        line_buffering: bool = False,
    ) -> None:
        self._errors = errors = "strict" if errors is None else errors
        self._codec = _codec(encoding, errors, newline)
        self.buffer = buffer
        self._loop = buffer._loop
        self.mode = mode
        self.line_buffering = line_buffering
        self._newline = newline
        if buffer._writable and buffer._at > 0:
            self._begin_encoder(False)

    # What is known without I/O.

    def __repr__(self) -> str:
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        return f"<{kind} name={self.name!r} mode={self.mode!r} encoding={self.encoding!r}>"

    @property
    def name(self) -> Any:
        """What was opened: the path, or the fd."""
        return self.buffer.name

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self.buffer.closed

    @property
    def encoding(self) -> str:
        """The name of the encoding."""
        return self._codec.name

    @property
    def errors(self) -> str:
        """What is done about errors in the encoding."""
        return self._errors

    @property
    def newlines(self) -> str | tuple[str, ...] | None:
        """The line ends that were met, if they are translated or told apart."""
        return getattr(self._decoder, "newlines", None)

    def fileno(self) -> int:
        """The fd."""
        return self.buffer.fileno()

    def isatty(self) -> bool:
        """Whether the file is a terminal."""
        return self.buffer.isatty()

    def readable(self) -> bool:
        """Whether the file may be read."""
        return self.buffer.readable()

    def writable(self) -> bool:
        """Whether the file may be written."""
        return self.buffer.writable()

    def seekable(self) -> bool:
        """Whether the file has positions."""
        return self.buffer.seekable()

    # Decoding.

    def _begin_decoder(self) -> Any:
        decoder: Any = self._codec.decoder(self._errors)
        if not self._newline:
            decoder = io.IncrementalNewlineDecoder(decoder, self._newline is None)
        self._decoder = decoder
        return decoder

    async def _fill(self, want: int = 0) -> str | None:
        """Decode the next piece of the file, of which so many characters are wanted; None at its end. The
        characters are kept.
        """
        decoder = self._decoder or self._begin_decoder()
        held, flags = decoder.getstate()
        size = -1
        if self.buffer._writable:
            # As far as `open()` reads: after a read, a write without a seek goes where that ends.
            size = max(_CHUNK, int(max(self._ratio, 1.0) * want))
        read = await self.buffer.read1(size)
        text: str = decoder.decode(read, not read)
        self._ratio = len(read) / len(text) if text else 0.0
        if self._used == len(self._chars) and not self._texts:
            self._chars, self._used = text, 0
            self._segments = []
        else:
            self._texts = [*self._texts, text]
        self._segments = [*self._segments, Segment(flags, held, read, len(text), not read)]
        return text if read or text else None

    def _join(self) -> None:
        """Make one string of all that is unread, and drop the segments before it."""
        if self._lines is not None:
            rest, self._lines = self._lines.rest(), None
            self._used -= rest
            self._mixed = self._mixed or rest > 0
        if not self._texts:
            return
        while self._segments and self._used >= self._segments[0].chars > 0:
            count = self._segments[0].chars
            self._segments = self._segments[1:]
            self._chars, self._used = self._chars[count:], self._used - count
        self._chars = "".join((self._chars, *self._texts))
        self._texts = ()

    def _take(self, count: int) -> str:
        begin = self._used
        self._used += count
        return self._chars[begin : self._used]

    def _forget(self) -> None:
        if self._lines is not None:
            self._lines.rest()
            self._lines = None
        self._chars, self._used = "", 0
        self._texts = self._segments = ()

    # Reading.

    async def read(self, size: int | None = -1, /) -> str:
        """Read `size` characters, or fewer at the end of the file; by default to the end."""
        size = size_of(size)
        self.buffer._check_readable()
        await self._enter()
        try:
            self._join()
            if size < 0:
                data = await self.buffer.read()
                decoder = self._decoder or self._begin_decoder()
                rest = self._chars[self._used :]
                text: str = decoder.decode(data, True)
                self._forget()
                return rest + text if rest else text
            have = len(self._chars) - self._used
            try:
                while have < size and (more := await self._fill(size - have)) is not None:
                    have += len(more)
            finally:
                self._join()
            return self._take(min(have, size))
        finally:
            self._leave()

    async def readline(self, size: int | None = -1, /) -> str:
        """Read a line with its end, or `size` characters of it at most; empty at the end of the file."""
        limit = size_of(size)
        self.buffer._check_readable()
        await self._enter()
        try:
            self._join()
            end = self._end_of_line(self._chars, self._used)
            count = end - self._used if end else len(self._chars) - self._used
            # Of a line end of two characters the first may have been the last one of a piece.
            before = self._chars[-1:] if count else ""
            text: str | None = ""
            try:
                while not end and not 0 <= limit <= count:
                    text = await self._fill()
                    if text is None:
                        break
                    end = self._end_of_line(before + text, 0)
                    count += end - len(before) if end else len(text)
                    before = text[-1:] or before
            finally:
                self._join()
            line = self._take(count if limit < 0 else min(count, limit))
            if text is None and len(line) == count:
                # All was read, so the position is the end.
                self._forget()
            return line
        finally:
            self._leave()

    def _end_of_line(self, text: str, begin: int) -> int:
        """Where the first line ends, 0 if it does not."""
        if self._newline == "":
            match = _ANY_END.search(text, begin)
            return match.end() if match else 0
        end = self._newline or "\n"
        found = text.find(end, begin)
        return found + len(end) if found >= 0 else 0

    async def readlines(self, hint: int | None = -1, /) -> list[str]:
        """All lines that are left, or so many that they have more than `hint` characters."""
        hint = size_of(hint)
        self.buffer._check_readable()
        await self._enter()
        try:
            self._join()
            # Nothing is taken before all is there, so a cancel loses no line.
            lines: list[str] = []
            count = 0
            while True:
                begin = self._used + count
                while end := self._end_of_line(self._chars, begin):
                    lines.append(self._chars[begin:end])
                    count += end - begin
                    begin = end
                    if 0 < hint < count:
                        self._used = begin
                        return lines
                try:
                    more = await self._fill()
                finally:
                    self._join()
                if more is None:
                    if rest := self._chars[self._used + count :]:
                        lines.append(rest)
                    # All was read, so the position is the end.
                    self._forget()
                    return lines
        finally:
            self._leave()

    async def __anext__(self) -> str:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    def __aiter__(self) -> AsyncIterator[str]:
        return _core.Lines(self._more_lines)

    async def _more_lines(self, feed: _core.Lines[str]) -> str:
        """The next line. The ones after it are fed to the iterator, as many as were decoded."""
        self.buffer._check_readable()
        if not (self._busy or self._mixed):
            self._join()
            begin, end = self._used, self._chars.rfind("\n") + 1
            if end > begin and self._newline in (None, "\n"):
                first = self._chars.find("\n", begin) + 1
                self._lines = feed
                self._used = end
                feed.feed(self._chars, first, end)
                return self._chars[begin:first]
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    # Writing.

    def _begin_encoder(self, at_begin: bool) -> codecs.IncrementalEncoder:
        """Codecs with a byte order mark write it at the begin of a file only."""
        encoder = self._encoder or self._codec.encoder(self._errors)
        self._encoder = encoder
        if at_begin:
            encoder.reset()
        else:
            encoder.setstate(0)
        return encoder

    async def write(self, text: str, /) -> int:
        """Write a string; the number of its characters. What is held back may be written later (`flush`)."""
        self.buffer._check_open()
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.buffer._check_writable()
        if self._busy:
            await self._enter()
        else:
            self._busy = True
        try:
            while self.buffer._busy:
                # A write that was cancelled goes on. What is encoded from here on is not lost by a cancel:
                # the encoder would be ahead of the file.
                await self.buffer._settle()
            shown = text
            if self._newline in ("\r", "\r\n"):
                shown = text.replace("\n", self._newline)
            data = (self._encoder or self._begin_encoder(True)).encode(shown)
            if self._segments or self._lines is not None:
                self._forget()
            if self._decoder is not None:
                self._decoder.reset()
            await self.buffer.write(data)
            if self.line_buffering and ("\n" in text or "\r" in text):
                await self.buffer.flush()
        finally:
            self._leave()
        return len(text)

    async def writelines(self, lines: Iterable[str], /) -> None:
        """Write each of these. Nothing is put between them."""
        self.buffer._check_open()
        for line in lines:
            await self.write(line)

    async def flush(self) -> None:
        """Write what is held back."""
        await self.buffer.flush()

    async def fsync(self, *, data_only: bool = False) -> None:
        """Write what is held back, and wait until the file is on its storage."""
        await self.buffer.fsync(data_only=data_only)

    async def truncate(self, size: int | None = None, /) -> int:
        """Cut the file to a size in bytes, by default to what was read ahead, or extend it; the new size."""
        return await self.buffer.truncate(size)

    async def detach(self) -> BufferedFile:
        """Write what is held back, and give the buffer away, which is where the text was read ahead to.

        What is called on this object afterwards raises ValueError.
        """
        await self._enter()
        try:
            await self.buffer.flush()
            self._forget()
            buffer, self.buffer = self.buffer, cast("BufferedFile", _Detached())
            return buffer
        finally:
            self._leave()

    async def reconfigure(
        self,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = _SAME,
        line_buffering: bool | None = None,
        write_through: bool | None = None,
    ) -> None:
        """Write what is held back, and go on with other settings; those not named stay.

        Raises io.UnsupportedOperation for encoding, errors or newline if something was read already.
        """
        self.buffer._check_open()
        await self._enter()
        try:
            if encoding is not None or errors is not None or newline is not _SAME:
                if self._decoder is not None:
                    raise io.UnsupportedOperation(
                        "It is not possible to set the encoding or newline of stream after the first read"
                    )
                errors = errors or (self._errors if encoding is None else "strict")
                newline = self._newline if newline is _SAME else newline
                if encoding == "locale":
                    encoding = locale.getencoding()
                codec = _codec(encoding or self._codec.name, errors, newline)
                await self.buffer.flush()
                self._codec, self._errors, self._newline, self._encoder = codec, errors, newline, None
                if self.buffer._writable and self.buffer._at > 0:
                    self._begin_encoder(False)
            await self.buffer.flush()
            if line_buffering is not None:
                self.line_buffering = bool(line_buffering)
            if write_through is not None:
                self.write_through = bool(write_through)
        finally:
            self._leave()

    # Positions.

    async def tell(self) -> int:
        """The position: a number that `seek` takes, here and of `open()`'s files. Otherwise it means nothing.

        For most codecs it is the number of bytes.
        """
        self.buffer._check_open()
        if not self.buffer._seekable:
            raise io.UnsupportedOperation("underlying stream is not seekable")
        await self._enter()
        try:
            if self.buffer._appends:
                # Where what is held back goes is known when it is written.
                await self.buffer.flush()
            # A write that was cancelled goes on, and moves it.
            await self.buffer._settle()
            self.buffer._check_open()
            self._join()
            return self._tell()
        finally:
            self._leave()

    def _tell(self) -> int:
        position = self.buffer._position()
        if not self._segments:
            return position
        used = self._used
        position -= sum(len(segment.read) for segment in self._segments)
        for segment in self._segments:
            if used <= segment.chars:
                break
            used -= segment.chars
            position += len(segment.read)
        position -= len(segment.held)
        if not used:
            return cookie(position, segment.flags)
        decoder, state = self._decoder, self._decoder.getstate()
        try:
            return place(decoder, segment, position, used)
        finally:
            decoder.setstate(state)

    async def seek(self, position: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position that `tell` has returned, to the begin (0), or to the end (0, `os.SEEK_END`)."""
        self.buffer._check_open()
        if not self.buffer._seekable:
            raise io.UnsupportedOperation("underlying stream is not seekable")
        await self._enter()
        try:
            self._join()
            if whence == os.SEEK_CUR:
                if position:
                    raise io.UnsupportedOperation("can't do nonzero cur-relative seeks")
                await self.buffer._settle()
                self.buffer._check_open()
                position = self._tell()
            elif whence == os.SEEK_END:
                if position:
                    raise io.UnsupportedOperation("can't do nonzero end-relative seeks")
                end = await self.buffer.seek(0, os.SEEK_END)
                self._begin_again(end == 0)
                return end
            elif whence != os.SEEK_SET:
                raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
            if position < 0:
                raise ValueError(f"negative seek position {position}")
            await self._go_to(position)
            return position
        finally:
            self._leave()

    def _begin_again(self, at_begin: bool) -> None:
        self._forget()
        if self._decoder is not None:
            self._decoder.reset()
        if self.buffer._writable:
            self._begin_encoder(at_begin)

    async def _go_to(self, position: int) -> None:
        begin, flags, feed, skip, last = parts(position)
        await self.buffer.seek(begin)
        self._begin_again(position == 0)
        if not position or not (self.buffer._readable or flags or skip):
            return
        decoder = self._decoder or self._begin_decoder()
        decoder.setstate((b"", flags))
        if skip:
            read = await self.buffer.read(feed)
            chars = decoder.decode(read, last)
            if len(chars) < skip:
                raise OSError("can't restore logical file position")
            self._chars, self._used = chars, skip
            self._segments = [Segment(flags, b"", read, len(chars), last)]

    # The end.

    def _close_now(self) -> bool:
        self._forget()
        return self.buffer._close_now()

    async def close(self) -> None:
        """Write what is held back, and close the file, even if that fails."""
        self._forget()
        await self.buffer.close()

    async def aclose(self) -> None:
        """As `close`, by the name that anyio's files and `contextlib.aclosing` have for it."""
        await self.close()

    async def __aenter__(self) -> Self:
        self.buffer._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
