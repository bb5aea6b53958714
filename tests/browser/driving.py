"""Headless Chromium, told what a person does: open, read, type, click; each waits for the page."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver import Chrome, ChromeOptions, ChromeService, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.servers.process import clean_environment

PATIENCE = 60
"""[s] for a page to show what it is asked for; what is there is found at once."""
BUSY = (
    *(ElementClickInterceptedException, ElementNotInteractableException),
    *(NoSuchElementException, StaleElementReferenceException),
)
"""What a page that is still being drawn answers."""
HIDE_MISSING = """
for (const each of document.images) if (!each.naturalWidth) each.style.visibility = "hidden"
"""
WIDTH, HEIGHT = 1280, 960
FLAGS = (
    *("--headless=new", "--no-proxy-server", "--disable-gpu", "--hide-scrollbars", "--lang=en"),
    *("--no-sandbox", "--disable-dev-shm-usage"),  # for root, and for containers
    "--force-prefers-reduced-motion",  # no picture in the middle of a fade
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # logos, and what Chromium itself asks for
)


@contextmanager
def chromium(url: str) -> Iterator[Browser]:
    """Run a browser for the pages below ``url``."""
    options = ChromeOptions()
    options.binary_location = program("chromium")
    for flag in (*FLAGS, f"--window-size={WIDTH},{HEIGHT}"):
        options.add_argument(flag)
    with tempfile.TemporaryDirectory(prefix="mltrack-browser-") as own:
        environment = clean_environment(HOME=own, TMPDIR=own)
        driver = Chrome(options, ChromeService(program("chromedriver"), env=environment))
        try:
            yield Browser(driver, url)
        finally:
            driver.quit()


def program(name: str) -> str:
    """Where a program is; RuntimeError if it is missing."""
    found = shutil.which(name)
    if not found:
        raise RuntimeError(f"no `{name}` on PATH: scripts/ci_browser.sh installs it")
    return found


@dataclass(frozen=True)
class Browser:
    """A browser with one page. What is not shown in time is an AssertionError with what is shown instead."""

    driver: Chrome
    url: str

    def open(self, path: str) -> None:
        """Load a page of the UI anew."""
        self.driver.get(f"{self.url}/{path}")

    def text(self) -> str:
        """All that the page shows, in one line."""
        return " ".join(self.driver.find_element(By.TAG_NAME, "body").text.split())

    def see(self, xpath: str, act: Callable[[WebElement], bool] = lambda found: True) -> WebElement:
        """Wait for what one can click, bring it into view, and ``act`` until that says that it worked."""

        def tried(driver: Chrome) -> WebElement | None:
            found = driver.find_element(By.XPATH, xpath)
            driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
            return found if found.is_displayed() and found.is_enabled() and act(found) else None

        try:
            return cast(WebElement, WebDriverWait(self.driver, PATIENCE, 0.2, BUSY).until(tried))
        except TimeoutException:
            raise AssertionError(f"no {xpath} on {self.driver.current_url}: {self.text()}") from None

    def read(self, text: str) -> None:
        """Wait until the page shows a text."""
        try:
            WebDriverWait(self.driver, PATIENCE, 0.2, BUSY).until(lambda _: text in self.text())
        except TimeoutException:
            raise AssertionError(f"no {text!r} on {self.driver.current_url}: {self.text()}") from None

    def click(self, xpath: str) -> None:
        self.see(xpath, lambda found: found.click() is None)

    def choose(self, label: str, kind: str) -> None:
        """Say of what type the value of a parameter is to be: each is a tab below the label."""
        self.click(f"{below(label)}[@role='tab'][normalize-space()={kind!r}][1]")

    def fill(self, label: str, text: str) -> None:
        """Type into the field below a label, in place of what stands there."""

        def typed(field: WebElement) -> bool:
            field.send_keys(Keys.CONTROL, "a")
            field.send_keys(text)
            return field.get_property("value") == text

        self.see(f"{below(label)}[self::input or self::textarea][1]", typed)

    def refusals(self) -> list[str]:
        """What the browser says beside fields whose content is out of bounds."""
        found = self.driver.find_elements(By.CSS_SELECTOR, "input:invalid")
        return [str(each.get_property("validationMessage")) for each in found]

    def picture(self, file: Path) -> None:
        """Keep what the window shows, without the frames of pictures that it could not load."""
        self.driver.execute_script(HIDE_MISSING)
        assert self.driver.save_screenshot(str(file))


def below(label: str) -> str:
    """All that stands after the label of a parameter."""
    return f"//label[starts-with(normalize-space(), '{label} ')]/following::*"


def button(text: str) -> str:
    return f"//button[normalize-space()={text!r}]"
