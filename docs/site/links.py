"""Owns: the check of links, in the Markdown of the repository and in the HTML of the site. No network.

A relative link has to lead to a file, its anchor to a heading or an id there. A link to elsewhere is only
checked for its form. The site must load nothing from elsewhere.
"""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from pathlib import Path

LOAD_IN_JS = r"""(?:fetch|importScripts|import|open)\(\s*['"`](https?:[^'"`]+|//[^'"`]+)"""
LOAD_IN_CSS = r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)"""
EXTERNAL = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def is_external(link: str) -> bool:
    """Whether a link has a scheme, and so leads out of the repository or the site."""
    return EXTERNAL.match(link) is not None or link.startswith("//")


def bad_form(link: str) -> str | None:
    """What is wrong with the form of an external link."""
    parts = urlsplit(link)
    if parts.scheme == "mailto":
        return None if re.fullmatch(r"\S+@\S+\.\S+", parts.path) else "no address"
    if parts.scheme not in ("http", "https"):
        return f"unexpected scheme {parts.scheme!r}"
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)+(:\d+)?|localhost(:\d+)?|127\.0\.0\.1(:\d+)?", parts.netloc):
        return f"no host in {parts.netloc!r}"
    return "a space in it" if re.search(r"\s", link) else None


@cache
def _tokens(text: str) -> tuple[list, ...]:
    parsed = MarkdownIt("commonmark").enable("table").parse(text)
    return tuple([token, *(token.children or [])] for token in parsed)


def of_markdown(text: str) -> list[str]:
    """The targets of all links and images of a page, without those in code."""
    found = []
    for family in _tokens(text):
        for token in family:
            target = token.attrGet("href") or token.attrGet("src")
            if target is not None:
                found.append(str(target))
    return list(dict.fromkeys(found))


def anchors_of_markdown(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page, and explicit ids."""
    found: set[str] = set(re.findall(r'<a (?:id|name)="([^"]+)"', text))
    for family, following in pairwise(_tokens(text)):
        if family[0].type == "heading_open":
            plain = "".join(child.content for child in following[1:] if child.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
            number, name = 0, slug
            while name in found:
                number += 1
                name = f"{slug}-{number}"
            found.add(name)
    return found


def problems_of_markdown(path: Path, root: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    text = path.read_text()
    found = []
    for link in of_markdown(text):
        where = f"{path.relative_to(root)}: {link}"
        if is_external(link):
            if wrong := bad_form(link):
                found.append(f"{where}: {wrong}")
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / unquote(name)).resolve() if name else path
        if not target.is_relative_to(root) or not target.exists():
            found.append(f"{where}: there is no such file")
        elif anchor and (target.suffix != ".md" or anchor not in anchors_of_markdown(target.read_text())):
            found.append(f"{where}: there is no such heading")
    return found


# Elements that make a browser load something, and the attribute that says what.
LOADS = dict.fromkeys(("script", "img", "iframe", "source", "video", "audio", "embed"), "src")
LOADS |= {"object": "data", "use": "href", "image": "href"}
# The kinds of <link> that do; the others (search, next, canonical) are links.
LOADING = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload"}


class Page(HTMLParser):
    """The links, the ids and the loads of an HTML page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self._style = False
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the element is, links to or loads."""
        have = {name: value for name, value in attrs if value}
        self.ids.add(have.get("id", ""))
        self.loads += loads_of_css(have.get("style", ""))
        self._style = tag == "style"
        if tag == "a" or (tag == "link" and not LOADING & {*have.get("rel", "").split()}):
            self.links += [have["href"]] if "href" in have else []
        elif tag == "link":
            self.loads.append(have["href"])
        elif tag in LOADS and LOADS[tag] in have:
            self.loads.append(have[LOADS[tag]])

    def handle_data(self, data: str) -> None:
        """Note what a style sheet in the page loads."""
        if self._style:
            self.loads += loads_of_css(data)


def loads_of_css(text: str) -> list[str]:
    """What a style sheet loads."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return ["".join(found) for found in re.findall(LOAD_IN_CSS, text)]


def problems_of_site(site: Path) -> list[str]:
    """The links of a built site that lead nowhere, and what it would load from elsewhere."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    found = []

    def check(path: Path, link: str, loaded: bool) -> None:
        wrong = None
        if is_external(link):
            wrong = "is loaded from elsewhere" if loaded else bad_form(link)
        elif link not in ("", "#"):  # "#" is the top of the page
            name, _, anchor = link.partition("#")
            target = (path.parent / unquote(name.partition("?")[0])).resolve() if name else path
            if not target.is_file():
                wrong = "there is no such file"
            elif anchor and target in pages and unquote(anchor) not in pages[target].ids:
                wrong = "there is no such id"
        if wrong:
            found.append(f"{path.relative_to(site.resolve())}: {link}: {wrong}")

    for path, page in pages.items():
        for link in page.links:
            check(path, link, loaded=False)
    loads = {path: page.loads for path, page in pages.items()}
    loads |= {path.resolve(): loads_of_css(path.read_text()) for path in site.rglob("*.css")}
    loads |= {path.resolve(): re.findall(LOAD_IN_JS, path.read_text()) for path in site.rglob("*.js")}
    for path, names in sorted(loads.items()):
        for name in names:
            if not name.startswith("data:"):
                check(path, name, loaded=True)
    return found
