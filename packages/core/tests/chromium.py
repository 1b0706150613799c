"""A window of Debian's Chromium for tests of pages; they are skipped where it is not installed."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest


@contextmanager
def window():
    """A window without a screen that keeps its console's messages."""
    pytest.importorskip("selenium", reason="selenium drives the browser")
    from selenium import webdriver

    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield opened
    finally:
        opened.quit()


def wait(window, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(window, 60).until(lambda _: condition())


def marked(window, key):
    """What a page's script wrote on the root of the document."""
    return window.execute_script("return document.documentElement.dataset[arguments[0]]", key)
