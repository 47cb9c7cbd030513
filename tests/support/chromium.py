"""Debian's Chromium without a window, driven by its own driver."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

WAIT = 20
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@contextmanager
def chromium(width: int = 1400, height: int = 1000) -> Iterator[Chrome]:
    """A browser with a page of a size; it reaches nothing but this machine."""
    options = ChromeOptions()
    options.binary_location = BROWSER or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
        "--force-device-scale-factor=1",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, Service(DRIVER or "", env=os.environ | {"HOME": "/tmp"}))
    try:
        resize(driver, width, height)
        yield driver
    finally:
        driver.quit()


def resize(driver: Chrome, width: int, height: int = 1000) -> None:
    """Make a page so large, however narrow a window may be."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def prefer(driver: Chrome, scheme: str) -> None:
    """Have the browser say that its user prefers dark or light pages."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


class Console:
    """A console that runs as a program, and a browser at it."""

    def __init__(self, process: subprocess.Popen[str], address: str, driver: Chrome) -> None:
        self.process = process
        self.address = address
        self.driver = driver

    def open(self, path: str) -> str:
        """Open a page; gives its words."""
        self.driver.get(self.address + path)
        return self.words()

    def words(self) -> str:
        """What the page says."""
        return self.driver.find_element(By.TAG_NAME, "main").text

    def until(self, seen: Callable[[], Any], what: str) -> Any:
        """Wait until something is seen."""
        return WebDriverWait(self.driver, WAIT, 0.1, [StaleElementReferenceException]).until(lambda _: seen(), what)

    def until_said(self, text: str) -> None:
        """Wait until the page says something."""
        self.until(lambda: text in self.words(), text)

    def all(self, selector: str) -> list[Any]:
        """The elements of a selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> Any:
        """The element of a selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def complaints(self) -> list[str]:
        """What the browser has complained about since it was asked last."""
        return [one["message"] for one in self.driver.get_log("browser") if one["level"] == "SEVERE"]
