"""How Sphinx builds these pages: offline, from Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "cloudware-async"
author = "cloudware-async contributors"
copyright = author  # noqa: A001 (Sphinx's name for it)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"

# `:::{important}`: what is in it reads as prose where nothing renders it
myst_enable_extensions = ["colon_fence"]
# `#names` of headings can be linked to
myst_heading_anchors = 3

# in the order of the source, which is meant to be read from the top
autodoc_member_order = "bysource"
# `str | None`, not where each name comes from
autodoc_typehints_format = "short"
# one parameter a line where a signature is long
python_maximum_signature_line_length = 88

# an "Attributes:" section describes what autodoc lists anyway: one entry each, not two
napoleon_use_ivar = True
# "Returns:" is prose here, and a colon in it ends no type
napoleon_use_rtype = False

# described without being installed
autodoc_mock_imports = ["django", "fastapi"]

# `from_` keeps its underscore
strip_signature_backslash = True


def double_backticks(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Turn code between single backticks, as docstrings here write it, into what Sphinx takes for code."""
    lines[:] = [re.sub(r"(?<![:`])`([^`]+)`(?!`)", r"``\1``", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Run before napoleon, which would take the colon of a URL for the end of a type."""
    app.connect("autodoc-process-docstring", double_backticks, priority=400)
