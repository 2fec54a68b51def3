"""A page in a real browser without a screen, if there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE_SECONDS = 120


def browser() -> str:
    """Path of a browser; the test is skipped if there is none."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("needs chromium")
    return found


def document(page: Path, fragment: str = "", *, profile: Path, real_time: bool = False) -> str:
    """The page's document after its scripts have run, as HTML.

    Args:
        page: To be opened.
        fragment: Behind its address.
        profile: Folder for the browser.
        real_time: Let clocks run, and stop when the page is loaded: else two seconds of timers go
            by at once, and no clock moves in a script.
    """
    done = subprocess.run(
        [
            *(browser(), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *(() if real_time else ("--virtual-time-budget=2000",)),
            f"--user-data-dir={profile}",
            page.as_uri() + fragment,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
