"""Make the pictures of the console in the documents: ``python docs/pictures/console.py`` shows its demo to a browser.

Needs chromium and chromedriver. Run it in the checkout.
"""

import base64
import os
import re
import subprocess
import sys
from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.support.chromium import chromium, prefer, resize

_HERE = Path(__file__).parent
_WAIT = 30


def _picture(driver: Chrome, name: str) -> None:
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "webp", "quality": 60})
    (_HERE / f"console-{name}.webp").write_bytes(base64.b64decode(taken["data"]))


def _until(driver: Chrome, text: str) -> None:
    WebDriverWait(driver, _WAIT, 0.2).until(lambda _: text in driver.page_source)


def _draw(driver: Chrome, address: str) -> None:
    driver.get(f"{address}log")
    _until(driver, "ticks/2")
    _picture(driver, "log")
    driver.get(f"{address}integrity")
    driver.find_element(By.CSS_SELECTOR, "button.main").click()
    _until(driver, "Findings")
    _picture(driver, "integrity")
    prefer(driver, "dark")
    driver.get(f"{address}key?key=reports/2026-05&a=4&b=5")
    _picture(driver, "key")
    resize(driver, 400, 700)
    driver.get(f"{address}space")
    _until(driver, "Largest results")
    WebDriverWait(driver, _WAIT, 0.2).until(lambda _: "Counting" not in driver.page_source)
    _picture(driver, "space")


def main() -> None:
    """Draw each picture."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pgresults", "web", "--demo", "--port", "0", "--access-log", os.devnull],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+/", process.stdout.readline())
        assert found is not None
        with chromium(1400, 720) as driver:
            _draw(driver, found[0])
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
