"""What all rooms' tests share: Ctrl-C that is heard, and a browser for the tests of pages."""

import os
import shutil
import signal

import pytest
from playwright.sync_api import sync_playwright

REQUIRED = "FEWLABEL_BROWSER_REQUIRED"
"""Set where a browser must be there, so that its absence can't pass for success."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So begins what a shell starts in the background, and what it starts in turn; tests send Ctrl-C to that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; a module is skipped where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)("no chromium on the PATH: apt-get install chromium")
    quiet = ("background-networking", "component-update", "sync", "extensions")
    with sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--disable-gpu", "--no-first-run", *(f"--disable-{name}" for name in quiet)],
        )
        yield started
        started.close()
