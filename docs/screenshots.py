"""Take docs/job.png: the page of a finished job. Needs a running service (CLR_URL) with a worker, and Chromium."""

import os
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from clr.client.sync import Client

URL = os.environ.get("CLR_URL", "http://127.0.0.1:8000")
SPEC = {"name": "digits demo", "task": "digits", "epochs": 20, "search": {"trials": 20}}
WIDTH, HEIGHT = 1200, 1120
COLOURS = 256
"""As many as such a page needs; a picture of more would be several times as large."""


def main() -> None:
    """Run the job, and write the upper part of its page beside this file."""
    with Client(URL) as client:
        job = client.submit(SPEC)
        job.wait(timeout_s=600)
    path = Path(__file__).with_name("job.png")
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=sandbox)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(f"{URL}/jobs/{job.id}", wait_until="networkidle")
        page.screenshot(path=path)
        browser.close()
    Image.open(path).quantize(COLOURS).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
