"""examples/static_server.py: whole files, ranges, conditional requests, and no way out of its folder."""

import contextlib
import http.client
import subprocess
import sys
import time
from email.utils import formatdate

import pytest
from support import children, daemons, loops, peers

pytestmark = pytest.mark.skipif(bool(loops.REFERENCE), reason="the example chooses proact's loop")

EXAMPLE = children.TESTS.parent / "examples" / "static_server.py"
LARGE = peers.payload(3_000_000)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "served"
    (place / "inner").mkdir(parents=True)
    (place / "page.html").write_text("<p>hello")
    (place / "inner" / "a b").write_bytes(b"0123456789")
    (place / "empty").touch()
    (place / "large.bin").write_bytes(LARGE)
    (tmp_path / "secret").write_text("secret")
    return place


@pytest.fixture
def get(engine, folder):
    """Send a request on one connection; the status, the headers, the body."""
    port = daemons.free_port()
    env = children.environment(engine, PORT=str(port), FOLDER=str(folder))
    with subprocess.Popen([sys.executable, str(EXAMPLE)], env=env) as child:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

        def get(path, method="GET", **headers):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=named)
            response = connection.getresponse()
            return response.status, response.headers, response.read()

        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    connection.connect()
                    break
                except ConnectionRefusedError:
                    assert time.monotonic() < deadline and child.poll() is None
                    time.sleep(0.02)
            with contextlib.closing(connection):
                yield get
        finally:
            child.kill()


def test_short_enough():
    assert len(EXAMPLE.read_text().splitlines()) < 60


def test_files(get, folder):
    status, headers, body = get("/page.html?query")
    assert (status, body) == (200, b"<p>hello")
    assert headers["content-type"] == "text/html"
    assert headers["last-modified"] == formatdate((folder / "page.html").stat().st_mtime, usegmt=True)
    assert get("/inner/a%20b")[2] == b"0123456789"
    assert get("/empty")[::2] == (200, b"")
    for _ in range(3):
        assert get("/large.bin")[2] == LARGE
    status, headers, body = get("/large.bin", "HEAD")
    assert (status, headers["content-length"], body) == (200, "3000000", b"")


def test_ranges(get):
    for asked, first, last in (
        ("0-0", 0, 0),
        ("3-5", 3, 5),
        ("7-", 7, 9),
        ("-2", 8, 9),
        ("5-1000", 5, 9),
        ("-1000", 0, 9),
    ):
        status, headers, body = get("/inner/a%20b", range=f"bytes={asked}")
        assert (status, body) == (206, b"0123456789"[first : last + 1])
        assert headers["content-range"] == f"bytes {first}-{last}/10"
    status, headers, body = get("/inner/a%20b", range="bytes=10-")
    assert (status, headers["content-range"], body) == (416, "bytes */10", b"")
    for ignored in ("bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4"):
        assert get("/inner/a%20b", range=ignored)[::2] == (200, b"0123456789")
    status, _, body = get("/large.bin", range="bytes=1000000-2000000")
    assert (status, body) == (206, LARGE[1_000_000:2_000_001])


def test_conditions(get, folder):
    _, headers, _ = get("/page.html")
    tag, date = headers["etag"], headers["last-modified"]
    for known in ({"if_none_match": tag}, {"if_none_match": f'"x", W/{tag}'}, {"if_none_match": "*"}):
        assert get("/page.html", **known)[::2] == (304, b"")
    assert get("/page.html", if_modified_since=date)[0] == 304
    assert get("/page.html", if_none_match='"x"', if_modified_since=date)[0] == 200
    for valid in (tag, date):
        assert get("/page.html", range="bytes=0-1", if_range=valid)[::2] == (206, b"<p")
    assert get("/page.html", range="bytes=0-1", if_range='"x"')[0] == 200
    (folder / "page.html").write_text("<p>other")
    assert get("/page.html", if_none_match=tag)[::2] == (200, b"<p>other")


@pytest.mark.parametrize(
    "path", ["/none", "/", "/inner", "/../secret", "/%2e%2e/secret", "/page.html/x", "/%00"]
)
def test_nothing_else(get, path):
    assert get(path)[::2] == (404, b"")


def test_the_connection_stays_unless_told(get):
    assert get("/page.html")[0] == get("/page.html", connection="keep-alive")[0] == 200
    assert get("/page.html", connection="close")[0] == 200
    with pytest.raises(ConnectionError):
        get("/page.html")
    # It connects again.
    assert get("/page.html")[0] == 200
