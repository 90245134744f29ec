"""The report in a real browser: every chart is drawn and fits, nothing is fetched, nothing fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support import chromium, made_up

from proact.lab.report.page import to_html

if TYPE_CHECKING:
    from pathlib import Path

    from proact.lab.results import Document


@pytest.fixture(scope="module")
def document() -> Document:
    return made_up.run(connections=(1, 10))


@pytest.fixture(scope="module")
def url(document: Document, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(to_html(document), encoding="utf-8")
    return file.as_uri()


def all_is_well(page: chromium.Page, width: int, url: str) -> None:
    charts = page.charts()
    assert len(charts) == 1 + 3 + 2 + 2 * 4
    for chart in charts:
        assert chart["points"]
        assert min(chart["points"]) > 0
        assert chart["drawn"] == chart["traces"]
        assert chart["cut"] == []
        assert chart["scrolled"] == 0
        assert 300 < chart["svg"] <= width - 32
    assert page.run("document.documentElement.scrollWidth") == width
    assert page.requests() == [url]
    assert page.errors() == []


def test_on_a_desktop_then_in_the_dark_then_on_a_phone(browser: chromium.Browser, url: str) -> None:
    page = browser.open(url)
    all_is_well(page, 1280, url)
    ink = "getComputedStyle(document.querySelector('.chart .xtick text')).fill"
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.run(f"[{ink}, {paper}]")
    page.scheme(dark=True)
    page.until(f"{ink} !== {json.dumps(light[0])} && {paper} !== {json.dumps(light[1])}")
    page.size(360, 760)
    page.until("[...document.querySelectorAll('.main-svg')].every((each) => each.clientWidth <= 328)")
    all_is_well(page, 360, url)
    page.close()


def test_the_answer_is_in_the_first_screen_of_a_phone(
    browser: chromium.Browser, document: Document, tmp_path: Path
) -> None:
    file = tmp_path / "run.html"
    file.write_text(to_html({**document, "claims": []}), encoding="utf-8")
    page = browser.open(file.as_uri(), width=390, height=844)
    bottom = "document.querySelector('.answer:not([hidden]) .said').getBoundingClientRect().bottom"
    assert 100 < page.run(bottom) < 0.7 * 844
    page.close()


def test_charts_are_there_before_anybody_scrolls(browser: chromium.Browser, url: str) -> None:
    page = browser.open(url)
    drawn = (
        "[...document.querySelectorAll('.chart')].filter((each) => each.querySelector('.main-svg')).length"
    )
    page.until(f"{drawn} === 1 + 3 + 2 + 2 * 4")
    page.run("for (const name of ['beforeprint', 'afterprint']) dispatchEvent(new Event(name))")
    assert page.errors() == []
    page.close()


def test_on_paper_it_is_black_on_white_and_no_chart_is_wider_than_a_page(
    browser: chromium.Browser, url: str
) -> None:
    page = browser.open(url, width=1440, dark=True)
    charts = "[...document.querySelectorAll('.chart')].filter((each) => each.clientWidth)"
    page.until(f"{charts}.every((each) => each.querySelector('.main-svg .xtick'))")
    state = (
        f"[Math.max(...{charts}.map((each) => each.querySelector('.main-svg').clientWidth)),"
        " getComputedStyle(document.querySelector('.chart .xtick text')).fill,"
        " getComputedStyle(document.body).backgroundColor]"
    )
    on_screen = page.run(state)
    page.run("dispatchEvent(new Event('beforeprint'))")
    page.until(f"{state}[1] !== {json.dumps(on_screen[1])}")
    assert page.run(state) == [680, "rgb(27, 31, 36)", "rgb(255, 255, 255)"]
    page.run("dispatchEvent(new Event('afterprint'))")
    page.until(f"JSON.stringify({state}) === {json.dumps(json.dumps(on_screen, separators=(',', ':')))}")
    assert page.errors() == []
    page.close()


def test_the_three_questions_choose_the_answer(browser: chromium.Browser, url: str) -> None:
    page = browser.open(url)
    said = "document.querySelector('.answer:not([hidden]) .said').textContent"
    assert page.run(said).startswith("For 1 connection and a request of 1 KiB")
    page.run(
        "(() => { const field = document.getElementById('choose').elements.many;"
        " field.value = '10, all of them send';"
        " field.dispatchEvent(new Event('change', { bubbles: true })); })()"
    )
    assert page.run(said).startswith("For 10 connections and a request of 1 KiB")
    page.run("document.querySelector('.answer:not([hidden]) a').click()")
    assert page.run("document.querySelector(location.hash + ' h2').textContent").startswith("echo: 10 conn")
    page.close()


def test_on_a_phone_from_the_start_and_downloaded(
    browser: chromium.Browser, url: str, document: Document, tmp_path: Path
) -> None:
    browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page = browser.open(url, width=360, height=760, dark=True)
    all_is_well(page, 360, url)
    page.run("document.getElementById('download').click()")
    file = tmp_path / "proact-lab.json"
    chromium.wait(file.exists)
    assert json.loads(file.read_text()) == document
    page.close()
