"""A real browser without a screen."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium from PATH, else the one that `playwright install chromium` brings; without either the error says so."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found)
        try:
            yield opened
        finally:
            opened.close()
