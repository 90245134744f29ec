"""The laboratory's pages as people see them: pictures in build/pictures, and nothing wrong in them."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

from support import made_up, pictures

from proact.lab.report.page import to_html

if TYPE_CHECKING:
    from pathlib import Path

    from support import chromium

#: The lower edge of the answer, as a share of the first screen.
SAID = "document.querySelector('.answer:not([hidden]) .said').getBoundingClientRect().bottom / innerHeight"

#: The upper edge of the first claim, likewise.
CLAIM = "document.querySelector('.claim').getBoundingClientRect().top / innerHeight"


def test_the_report(browser: chromium.Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    document = made_up.run(connections=(1, 10, 100))
    file.write_text(to_html({**document, "claims": []}), encoding="utf-8")
    for name, page in pictures.take(browser, file.as_uri(), "report"):
        assert page.run(pictures.WRONG) == [], name
        assert 0 < page.run(SAID) < 0.7, name
        assert page.errors() == []


def test_the_report_of_claims(browser: chromium.Browser, tmp_path: Path) -> None:
    file = tmp_path / "claims.html"
    file.write_text(to_html(made_up.run(connections=(1,))), encoding="utf-8")
    for name, page in pictures.take(browser, file.as_uri(), "claims"):
        assert page.run(pictures.WRONG) == [], name
        assert 0 < page.run(CLAIM) < 0.5, name


def test_the_page_of_a_server(browser: chromium.Browser) -> None:
    command = [sys.executable, "-m", "proact", "lab", "serve"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stderr is not None
            url = re.search(r"http://\S+", serving.stderr.readline())
            assert url is not None
            for name, page in pictures.take(browser, url[0], "serve"):
                assert page.run(pictures.WRONG) == [], name
            for name, page in pictures.take(browser, url[0], "choose", pictures.answered):
                assert page.run(pictures.WRONG) == [], name
                assert 0 < page.run(SAID) < 0.7, name
                assert page.errors() == []
        finally:
            serving.terminate()
