"""A headless browser for tests that look at pages: found where there is one, a reason to skip where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
UNPACKED = Path(__file__).parents[1] / ".venv" / "browser" / "chromium"  # what tests/fetch_browser.sh makes
OPTIONS = ("--no-sandbox", "--disable-gpu", "--allow-file-access-from-files")


def find_browser() -> Path | None:
    """KEYREID_BROWSER, a Chromium or Chrome on PATH, or the one that tests/fetch_browser.sh unpacked."""
    named = os.environ.get("KEYREID_BROWSER")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    return Path(found) if found else UNPACKED if UNPACKED.is_file() else None


@contextmanager
def running_browser() -> Iterator[Any]:
    """A playwright Browser; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        bundled = Path(driver.chromium.executable_path)
        program = find_browser() or (bundled if bundled.exists() else None)
        if program is None:
            pytest.skip("no browser: install chromium, run tests/fetch_browser.sh, or name one in KEYREID_BROWSER")
        own = {"LD_LIBRARY_PATH": str(program.parent / "lib"), "FONTCONFIG_PATH": str(program.parent)}
        environment = {**os.environ, **(own if program == UNPACKED else {})}
        browser = driver.chromium.launch(executable_path=str(program), args=list(OPTIONS), env=environment)
        yield browser
        browser.close()
