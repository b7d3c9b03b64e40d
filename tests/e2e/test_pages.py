"""The pages as people use them: in a real browser, over a real service with a real worker."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from service.app import create_app
from service.settings import Settings
from tests.service.conftest import serving as running

CHROMIUM = "/usr/bin/chromium"
HOSTILE = "<script>alert(1)</script>"
WAIT_MS = 60_000
expect.set_options(timeout=20_000)

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # root may not have one
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


@contextmanager
def profile(browser: Browser, url: str) -> Iterator[BrowserContext]:
    """A fresh one, in which nothing may go to another host and nothing may complain."""
    context = browser.new_context(base_url=url, viewport={"width": 1280, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
    asked: list[str] = []
    said: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    context.on("console", lambda message: said.append(f"{message.text} at {message.location}"))
    context.on("weberror", lambda error: said.append(str(error.error)))
    yield context
    context.close()
    assert {address for address in asked if not address.startswith(f"{url}/")} == set()
    assert said == []


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with profile(browser, url) as context:
        yield context.new_page()


def submit(url: str, **fields: object) -> str:
    answer = httpx.post(f"{url}/v1/jobs", json={"task": "digits"} | fields)
    job_id: str = answer.json()["id"]
    return job_id


def test_a_job_is_submitted_from_the_form_and_watched_to_its_end_without_a_reload(page: Page, url: str) -> None:
    page.goto("/")
    page.get_by_role("link", name="New job").click()
    page.locator("#task").select_option("digits")
    expect(page.get_by_label("Hidden")).to_be_visible()
    page.get_by_label("Name").fill(HOSTILE)
    page.get_by_label("Epochs").first.fill("-4")
    expect(page.get_by_text("input should be greater than or equal to 0.000001")).to_be_visible()
    page.get_by_label("Epochs").first.fill("10")
    page.locator("summary", has_text="Search").click()
    page.get_by_label("Trials").fill("3")
    expect(page.locator("#yaml")).to_contain_text("trials: 3")
    assert json.loads(page.locator("#curl").inner_text().partition("-d '")[2].rstrip("'"))["epochs"] == 10
    page.get_by_role("button", name="Submit job").click()

    expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible()
    page.evaluate("window.stayed = true")
    expect(page.get_by_role("status")).to_have_text("succeeded", timeout=WAIT_MS)
    assert page.evaluate("window.stayed"), "the page must not have been loaded again"
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    for title in ("The answer", "Range test", "Evidence", "Search"):
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    pictures = page.locator("picture img:not([loading])")  # of the rest, what nobody opened is not drawn
    expect(pictures).to_have_count(5)
    for picture in pictures.all():
        expect(picture).to_have_js_property("complete", True)
    assert pictures.evaluate_all("images => images.every(image => image.naturalWidth > 0)")

    page.locator("[data-copy=snippet]").click()
    expect(page.locator("[data-copy=snippet]")).to_have_text("Copied")
    pasted = page.evaluate("navigator.clipboard.readText()")
    assert pasted == httpx.get(f"{page.url.replace('/jobs/', '/v1/jobs/')}/recommendation?format=python").text

    page.get_by_role("link", name="the study in Optuna's dashboard").click()
    page.wait_for_url("**/dashboard/studies/*")


def test_a_job_is_cancelled_run_again_with_changes_and_deleted_by_the_keyboard_alone(page: Page, url: str) -> None:
    job_id = submit(url, epochs=1000, args={"hidden": 16})
    page.goto(f"/jobs/{job_id}")
    page.get_by_role("button", name="Cancel").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("cancelled", timeout=WAIT_MS)
    page.get_by_role("link", name="Clone").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Hidden")).to_have_value("16")
    expect(page.get_by_label("Epochs").first).to_have_value("1000")
    page.goto(f"/jobs/{job_id}")
    page.locator("summary", has_text="Delete").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/")
    assert httpx.get(f"{url}/v1/jobs/{job_id}").status_code == 404


def test_every_page_fits_a_phone_and_follows_the_system_into_the_dark(browser: Browser, url: str) -> None:
    job_id = submit(url, search=None, epochs=5)
    other = submit(url, search=None, epochs=5, name=HOSTILE)
    for started in (job_id, other):
        while httpx.get(f"{url}/v1/jobs/{started}").json()["state"] in ("queued", "running"):
            time.sleep(0.1)
    papers = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(base_url=url, viewport={"width": 360, "height": 800}, color_scheme=scheme)
        for path in ("/", "/jobs/new", f"/jobs/{job_id}", f"/compare?job={job_id}&job={other}", "/compare"):
            page.goto(path)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= 360, f"{path} is {width} pixels wide"
        page.goto(f"/jobs/{job_id}")
        shown = page.locator("picture img").first.evaluate("image => image.currentSrc")
        assert "size=narrow" in shown
        assert ("theme=dark" in shown) == (scheme == "dark")
        papers[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.close()
    assert papers == {"light": "rgb(244, 246, 248)", "dark": "rgb(13, 17, 23)"}


def test_without_scripts_a_job_is_submitted_and_shown_on_reload(browser: Browser, url: str) -> None:
    context = browser.new_context(base_url=url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/jobs/new?task=digits")
    page.locator("[name=name]").fill("by hand")
    page.get_by_role("button", name="What would it cost?").click()
    assert "name: by hand" in page.locator("#yaml").inner_text()
    page.locator("[name=epochs]").fill("0")
    page.get_by_role("button", name="Submit job").click()
    assert "greater than or equal" in page.locator("#error-epochs").inner_text()
    page.locator("[name=epochs]").fill("1000")
    page.get_by_role("button", name="Submit job").click()
    page.wait_for_url(re.compile(r"/jobs/[0-9a-f]{32}$"))
    job = page.url
    with page.expect_response("**/cancel"):
        page.get_by_role("button", name="Cancel").click()
    while page.locator("#state").inner_text() != "cancelled":
        page.goto(job)
    context.close()


def test_the_reference_shows_the_routes(page: Page) -> None:
    page.goto("/docs")
    expect(page.get_by_text("Submit a job", exact=True)).to_be_visible()


def clr(home: Path, *arguments: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "service.cli", *arguments]
    environment = os.environ | {"CLR_HOME": str(home)}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout


def test_once_there_is_a_token_people_sign_in_with_it_and_out_again(
    browser: Browser, migrated_sqlite: Path, tmp_path: Path
) -> None:
    shutil.copy(migrated_sqlite, tmp_path / "clr.db")
    token = clr(tmp_path, "token", "create", "--role", "submit", "--name", "me").split()[-1]
    api = create_app(Settings(home=tmp_path, database_url=f"sqlite:///{tmp_path}/clr.db"))
    with running(api) as url, profile(browser, url) as context:
        page = context.new_page()
        page.goto("/jobs/new")
        expect(page).to_have_url(re.compile("/signin"))
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(re.compile("/jobs/new"))
        expect(page.get_by_role("button", name="Submit job")).to_be_visible()
        page.goto("/")
        expect(page.get_by_text(f"curl -s {url}/v1/jobs")).to_be_visible()  # how to begin, where there is no job yet
        page.get_by_role("button", name="Sign out").click()
        page.goto("/")
        expect(page).to_have_url(re.compile("/signin"))
