"""Owns: how Sphinx builds the site; build.py makes what it reads."""

import proact

project = "proact"
author = "The proact authors"
version = release = proact.__version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "index"
exclude_patterns = [".cache"]
myst_heading_anchors = 4  # the anchors that GitHub gives headings, so that a link works in both places
# A fenced block without a language is text; an unknown language is an error.
highlight_language = "text"

default_role = "code"  # docstrings are Markdown: `name` is code
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"

html_theme = "furo"
html_title = f"proact {version}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
