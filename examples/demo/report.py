"""What the demo prints, and the checks that end it when they fail."""

from __future__ import annotations

import time


class CheckFailed(Exception):  # noqa: N818 - a verdict on the demo, not an error of the library
    """Something did not come back as it was stored."""


class Report:
    """Prints the story to standard output and counts the checks that passed."""

    def __init__(self) -> None:
        self.passed = 0
        self._begun = time.monotonic()

    def chapter(self, title: str) -> None:
        """Begin a chapter."""
        print(f"\n{title}")

    def line(self, text: str) -> None:
        """Print one line of the story."""
        print(f"   {text}")

    def check(self, passed: bool, what: str) -> None:
        """Print and count a check, or raise CheckFailed."""
        if not passed:
            raise CheckFailed(f"Not true: {what}")
        self.passed += 1
        print(f"   ok   {what}")

    def seconds(self) -> float:
        """Time since the story began [s]."""
        return time.monotonic() - self._begun


def amount(size_bytes: int) -> str:
    """Write a size: ``1,234 bytes``, from 10 kB on ``12.3 kB``."""
    return f"{size_bytes:,} bytes" if size_bytes < 10_000 else f"{size_bytes / 1000:,.1f} kB"
