"""Flower's templates with a link more in the navigation, and the page's own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from tornado.template import DictLoader

from workers.dashboard.handlers import TEMPLATES

logger: Final = logging.getLogger(__name__)

NAVIGATION: Final = "navbar.html"
END_OF_LINKS: Final = "</ul>"
"""The first one in the navigation: the theme and links to other sites follow it."""


def stock_and_ours(stock: str) -> DictLoader:
    """A loader of the templates in the folder `stock` and of ours. All are read now: no request leads to a file."""
    templates = {path.name: path.read_text(encoding="utf-8") for path in Path(stock).glob("*.html")}
    ours = {path.name: path.read_text(encoding="utf-8") for path in TEMPLATES.glob("*.html")}
    link = ours.pop("link.html")
    before, end, after = templates[NAVIGATION].partition(END_OF_LINKS)
    if not end:
        logger.warning("dashboard.no_link: Flower's navigation has changed; the page is at /fleet")
    templates[NAVIGATION] = before + (link + end if end else "") + after
    return DictLoader({**templates, **ours})
