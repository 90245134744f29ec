"""Pictures of the laboratory's pages: on a desktop and on a phone, light and dark, and what is wrong in them.

``python -m support.pictures RESULTS FOLDER`` takes those of the report of some results, and of the page of
`proact lab serve`: as it opens, with the answer to its questions, and with a run under way.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from support import chromium

#: Width and height of the windows.
WINDOWS = {"desktop": (1440, 900), "phone": (390, 844)}
SCHEMES = ("light", "dark")

#: Where pictures are kept: an artefact of the tests.
FOLDER = Path(os.environ.get("PICTURES", Path(__file__).parents[2] / "build" / "pictures"))

_DRAWN = (
    "[...document.querySelectorAll('.chart')].filter((each) => each.clientWidth)"
    ".every((each) => each.querySelector('.main-svg .xtick'))"
)

#: What a reader would complain of, as sentences.
WRONG = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")


def take(
    browser: chromium.Browser,
    url: str,
    name: str,
    prepare: Callable[[chromium.Page], object] = lambda page: None,
    folder: Path = FOLDER,
) -> Iterator[tuple[str, chromium.Page]]:
    """Each page once it has been prepared and all its charts are drawn; its pictures are in the folder.

    ``NAME.png`` is the first screen, ``NAME-whole.png`` everything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for window, (width, height) in WINDOWS.items():
        for scheme in SCHEMES:
            page = browser.open(url, width=width, height=height, dark=scheme == "dark")
            prepare(page)
            page.run("for (const name of ['beforeprint', 'afterprint']) dispatchEvent(new Event(name))")
            page.until(_DRAWN)
            page.run("scrollTo(0, 0)")
            shown = f"{name}-{window}-{scheme}"
            page.screenshot(folder / f"{shown}.png", whole=False)
            page.screenshot(folder / f"{shown}-whole.png")
            yield shown, page
            page.close()


def answered(page: chromium.Page) -> None:
    """Ask the questions as they stand, and wait for the answer."""
    page.run("document.getElementById('choose').requestSubmit()")
    page.until("document.getElementById('said').textContent")


#: The cells after which a run is pictured.
_CELLS = 3


def running(page: chromium.Page) -> None:
    """Start a run of a few models, and wait until the page shows some cells and the figures of the next."""
    page.run(
        "for (const box of document.querySelectorAll('input[name=models]'))"
        " box.checked = ['threads', 'epoll', 'asyncio', 'proact-epoll'].includes(box.value);"
        "const { elements } = document.getElementById('form');"
        "elements.connections.value = '10,100'; elements.repeat.value = '2'; elements.duration.value = '2';"
        "document.getElementById('start').click()"
    )
    page.until(f"document.querySelectorAll('#cells tr').length >= {_CELLS}")
    page.until("document.querySelector('#chart .main-svg .xtick')")
    page.until("document.getElementById('rate').textContent !== '–'")


def main(results: str, folder: str) -> None:
    """Take the pictures, and print what is wrong in them."""
    browser = chromium.Browser()
    command = [sys.executable, "-m", "proact", "lab", "serve"]
    serving = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert serving.stderr is not None
    try:
        with tempfile.TemporaryDirectory() as place:
            report = Path(place) / "report.html"
            written = [sys.executable, "-m", "proact", "lab", "report", results, "--html", str(report)]
            subprocess.run(written, check=False, stdout=subprocess.DEVNULL)
            found = re.search(r"http://\S+", serving.stderr.readline())
            assert found is not None
            for url, name, prepare in (
                (report.as_uri(), "report", lambda page: None),
                (found[0], "serve", lambda page: None),
                (found[0], "choose", answered),
                (found[0], "run", running),
            ):
                for shown, page in take(browser, url, name, prepare, Path(folder)):
                    print(shown, *page.run(WRONG), *page.errors(), sep="\n  ")
                    if name == "run":
                        page.run("document.getElementById('stop').click()")
                        page.until("document.getElementById('stop').disabled")
    finally:
        serving.terminate()
        serving.wait()
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
