"""The pages as they are without scripts."""

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import httpx
import pytest

from clr.trials.baselines import did_better
from clr.tuning.recommendation import PROVISIONAL
from service.pages.page import FOLDER
from service.store import jobs

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

Submit = Callable[..., dict[str, Any]]
PERSON = {"Accept": "text/html,*/*"}
HOSTILE = "<script>alert(1)</script>"
BOUNDS = {
    "base_lr": 0.001,
    "max_lr": 0.006,
    "interval": {"base_lr": [0.0008, 0.0013], "max_lr": [0.005, 0.0075]},
    "confidence": "high",
    "reasons": [f"the loss of {HOSTILE} is lowest there"],
}
RUNS = [
    {"name": "recommended", "mean": 0.97, "std": 0.01, "values": [0.96, 0.98]},
    {"name": HOSTILE, "mean": 0.9, "std": 0.01, "values": [0.89, 0.91]},
]
EVIDENCE = {"metric": HOSTILE, "direction": "maximize", "epochs": 10.0, "seeds": 2, "runs": RUNS, "verdict": HOSTILE}


ABOUT = {
    "iterations_per_epoch": 15,
    "metric": "accuracy",
    "direction": "maximize",
    "trained_with": None,
    "predicted_steps": 900,
}


def point(step: int, metric: float | None = 0.5) -> dict[str, Any]:
    return {"step": step, "lr": [0.001, 0.01], "loss": [2.0, 1.0], "metric": metric, "diverged": False}


@pytest.fixture
def whole(worker: Any, submit: Submit, recommendation: dict[str, Any]) -> str:
    """A job with results of every stage, hostile wherever a user or a task has a say."""
    job_id: str = submit(name=HOSTILE)["id"]
    worker.claim()
    about = {"iterations_per_epoch": 15, "metric": HOSTILE, "direction": "maximize", "predicted_steps": 900}
    worker.write(jobs.set_training, **about)
    worker.run("range_test", 0, [point(2), point(4)], params={"policy": "exponential_ramp"})
    worker.write(jobs.set_range_test, document={"bounds": BOUNDS, "smoothed": {"lr": [0.001, 0.01], "loss": [2, 1]}})
    for number in range(30):
        schedule = {"policy": HOSTILE, "base_lr": 0.001, "max_lr": 0.006, "ratio": 6.0, "stepsize_multiplier": 5.0}
        schedule |= {"ratio": 3.0} if number == 0 else {}
        worker.run("search", number, [point(20)], value=number / 30, params=schedule)
    worker.recommend(recommendation | {"job_id": job_id, "warnings": [HOSTILE], "evidence": EVIDENCE})
    worker.end("fail", error=HOSTILE)
    return job_id


def text(answer: httpx.Response) -> str:
    assert answer.headers["content-type"].startswith("text/html"), answer.text
    return answer.text


def test_every_page_forbids_all_but_its_own_files_and_escapes_what_others_wrote(
    client: httpx.Client, whole: str, submit: Submit
) -> None:
    other = submit()["id"]
    paths = ("/", "/jobs/new", f"/jobs/new?from={whole}", f"/jobs/{whole}", f"/compare?job={whole}&job={other}")
    for path in (*paths, "/compare", f"/?name={HOSTILE}", f"/jobs/new?task={HOSTILE}", "/jobs/nope"):
        answer = client.get(path, headers=PERSON)
        page = text(answer)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'"), path
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert HOSTILE not in page, path
        assert not re.search(r"<script(?! type=\"module\" src=\"/assets/)|<style|\sstyle=|\son\w+=", page), path
        assert not re.search(r"(src|srcset|href|action)=\"(?!/|#|\?)", page), path


def test_a_job_page_shows_each_stage_and_the_answer(client: httpx.Client, whole: str) -> None:
    page = unescape(text(client.get(f"/jobs/{whole}")))
    assert "base_lr=0.001," in page
    assert f"/v1/jobs/{whole}/recommendation?format=python" in page
    for picture in ("range-test", "schedule", "search", "history", "confirmation"):
        (source,) = set(re.findall(rf"/v1/jobs/{whole}/{picture}\.svg\?size=(?:wide|half)&v=[\w.-]+", page))
        drawn = client.get(source)
        assert drawn.text.startswith("<svg"), source
        assert HOSTILE not in drawn.text
        assert "immutable" in drawn.headers["cache-control"]
    assert f"the loss of {HOSTILE} is lowest there" in page
    assert "data-events" not in page, "a finished job has nothing to follow"


def test_each_trial_can_be_pointed_at_and_tells_all_of_itself(client: httpx.Client, whole: str) -> None:
    page = text(client.get(f"/jobs/{whole}"))
    told = [unescape(found) for found in re.findall(r"<circle [^>]*><title>([^<]*)</title>", page)]
    assert len(told) == 30
    wanted = (
        f"trial 29: {HOSTILE} 0.96667; policy {HOSTILE}, base_lr 0.001, max_lr 0.006, ratio 6, stepsize_multiplier 5"
    )
    assert told[-1] == wanted, "the best one on top"


def test_a_baseline_that_won_is_shown_with_its_own_lines(
    client: httpx.Client, worker: Any, submit: Submit, recommendation: dict[str, Any]
) -> None:
    job_id = submit()["id"]
    worker.claim()
    other = {"name": "one_cycle", "lr": 0.1, "mean": 0.99, "python": "OneCycleLR(...)"}
    lesser = {"name": "fixed", "lr": 0.05, "mean": 0.9, "python": "not shown"}
    warnings = [f"{did_better('one_cycle', 0.1)}0.09 +- 0.01"]
    worker.recommend(recommendation | {"job_id": job_id, "alternatives": [other, lesser], "warnings": warnings})
    page = text(client.get(f"/jobs/{job_id}"))
    assert "Instead: one cycle at 0.1, mean 0.99" in page
    assert "OneCycleLR(...)" in page
    assert "not shown" not in page


def test_a_long_run_is_no_silent_one(client: httpx.Client, worker: Any, submit: Submit) -> None:
    job_id = submit()["id"]
    worker.claim()
    standing = {"stage": "search", "number": 3, "step": 41_000, "steps": 108_000, "loss": 0.25}
    worker.write(jobs.progress, stage="search", progress=0.4, steps=42_000, under_way=[standing])
    assert "search, run 3: step 41\u202f000 of 108\u202f000, loss 0.25" in text(client.get(f"/jobs/{job_id}"))
    assert client.get(f"/v1/jobs/{job_id}").json()["under_way"] == [standing]
    worker.write(jobs.succeed)
    assert client.get(f"/v1/jobs/{job_id}").json()["under_way"] == []


def test_bounds_that_are_provisional_are_said_to_be(
    client: httpx.Client, worker: Any, submit: Submit, recommendation: dict[str, Any]
) -> None:
    job_id = submit()["id"]
    worker.claim()
    worker.recommend(recommendation | {"job_id": job_id, "reasons": [PROVISIONAL]})
    assert PROVISIONAL in text(client.get(f"/jobs/{job_id}"))
    worker.recommend(recommendation | {"job_id": job_id})
    assert PROVISIONAL not in text(client.get(f"/jobs/{job_id}"))


def test_a_job_that_succeeded_is_extended_from_its_page(
    client: httpx.Client, worker: Any, submit: Submit, recommendation: dict[str, Any]
) -> None:
    job_id = submit()["id"]
    worker.claim()
    worker.recommend(recommendation | {"job_id": job_id})
    worker.write(jobs.set_training, **ABOUT)
    worker.write(jobs.set_range_test, document={"bounds": BOUNDS, "smoothed": None})
    assert client.post(f"/jobs/{job_id}/extend", data={"budget": "2"}).status_code == 409
    worker.end()
    for wrong in ("", "-1", "nan", "1e9", "many"):
        assert client.post(f"/jobs/{job_id}/extend", data={"budget": wrong}).status_code == 422
    answer = client.post(f"/jobs/{job_id}/extend", data={"budget": "2.5"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job_id}")
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "queued"


def test_the_list_tells_the_value_and_what_was_spent(
    client: httpx.Client, worker: Any, submit: Submit, recommendation: dict[str, Any]
) -> None:
    submit(epochs=10, budget=6)
    worker.claim()
    worker.write(jobs.set_training, **ABOUT)
    worker.write(jobs.progress, stage="search", progress=0.5, steps=375)
    runs = [{"name": "recommended", "mean": 0.9731, "std": 0.01}]
    worker.recommend(recommendation | {"evidence": EVIDENCE | {"metric": "accuracy", "runs": runs}})
    page = re.sub(r"<[^>]*>", "", text(client.get("/")))
    assert re.search(r"0\.9731 accuracy\s+2\.5 of 6", page)


def test_trials_are_paged(client: httpx.Client, whole: str) -> None:
    first = text(client.get(f"/jobs/{whole}"))
    assert first.count('<th scope="row" class="number">') == 25
    (more,) = re.findall(r'href="(\?after=\d+)#search">Next', first)
    rest = text(client.get(f"/jobs/{whole}{more}"))
    assert re.findall(r'<th scope="row" class="number">(\d+)', rest) == ["25", "26", "27", "28", "29"]


def test_jobs_are_filtered_and_paged(client: httpx.Client, submit: Submit) -> None:
    ids = [submit(name=f"job {number}")["id"] for number in range(27)]
    first = text(client.get("/"))
    assert re.findall(r"/jobs/([0-9a-f]{32})", first) == ids[:1:-1]
    (older,) = re.findall(r'href="(/\?[^"]+)">Older', first)
    assert re.findall(r"/jobs/([0-9a-f]{32})", text(client.get(unescape(older)))) == ids[1::-1]
    assert re.findall(r"/jobs/([0-9a-f]{32})", text(client.get("/?name=job+3&state=queued"))) == [ids[3]]
    assert "No job matches" in text(client.get("/?state=failed"))


def test_an_empty_list_shows_the_first_line_to_try(client: httpx.Client, url: str) -> None:
    assert f"curl -s {url}/v1/jobs -H 'Content-Type: application/json'" in unescape(text(client.get("/")))


def test_a_form_is_submitted_once_and_only_what_differs_from_the_defaults_is_sent(
    client: httpx.Client, worker: Any
) -> None:
    form = {"task": "digits", "key": "k", "epochs": "1e1", "hidden": "", "args.hidden": "32", "search": "on"}
    form |= {"search.ratio.0": "2", "search.ratio.1": "8", "confirm": "on", "optimizer": "Adam"}
    form |= {"optimizer.Adam.eps": "1e-8", "optimizer.Adam.amsgrad": "on", "search.policies": "triangular"}
    form |= {"confirm.baselines": "fixed"}
    answers = [client.post("/jobs/new", data=form) for _ in range(2)]
    assert {answer.status_code for answer in answers} == {303}
    (path,) = {answer.headers["location"] for answer in answers}
    spec = client.get(f"/v1{path}").json()["spec"]
    assert (spec["epochs"], spec["args"], spec["search"]["ratio"]) == (10.0, {"hidden": 32}, [2, 8])
    assert (spec["optimizer"]["name"], spec["optimizer"]["args"]["amsgrad"]) == ("Adam", True)
    assert spec["confirm"]["baselines"] == ["fixed"]
    again = unescape(text(client.get(f"/jobs/new?from={path.rpartition('/')[2]}")))
    assert '"optimizer": {"name": "Adam", "args": {"amsgrad": true}}' in again
    others = {"task": "digits", "optimizer": "Adamax", "optimizer.Adamax": '{"eps": 1e-9}', "preview": "1"}
    shown = unescape(text(client.post("/jobs/new", data=others)))
    assert '"optimizer": {"name": "Adamax", "args": {"eps": 1e-09}}' in shown
    assert (
        '"optimizer"'
        not in unescape(text(client.post("/jobs/new", data=others | {"optimizer": ""}))).split('<pre id="curl"')[1]
    )
    assert '"ratio": [2, 8]' in again


@pytest.mark.parametrize(
    ("sent", "field", "rule"),
    [
        ({"epochs": "-1"}, "epochs", "greater than or equal to"),
        ({"epochs": "many"}, "epochs", "valid number"),
        ({"epochs": "NaN"}, "epochs", "valid number"),
        ({"args.hidden": "0"}, "args.hidden", "minimum 1"),
        ({"search": "on", "search.ratio.0": "9", "search.ratio.1": "2"}, "search.ratio", "low <= high"),
        ({"optimizer": "SGD", "optimizer.SGD.momentum": "2"}, "optimizer.SGD.momentum", "less than 1"),
    ],
)
def test_what_breaks_a_rule_is_told_beside_its_field(
    client: httpx.Client, worker: Any, sent: dict[str, str], field: str, rule: str
) -> None:
    answer = client.post("/jobs/new", data={"task": "digits", "optimizer": "SGD"} | sent)
    assert answer.status_code == 422
    (told,) = re.findall(rf'id="error-{re.escape(field)}" data-live>([^<]+)', text(answer))
    assert rule in unescape(told)
    assert not client.get("/v1/jobs").json()["items"]


def test_the_form_as_it_comes_is_the_task_and_nothing_more(client: httpx.Client, worker: Any) -> None:
    assert not re.search(r'name="notify" checked', text(client.get("/jobs/new?task=digits")))
    shown = unescape(
        text(
            client.post(
                "/jobs/new",
                data={
                    "search": "on",
                    "confirm": "on",
                    "search.policies": "triangular",
                    "search.ratio.0": "1.5",
                    "search.ratio.1": "20",
                    "search.rise.0": "0.05",
                    "search.rise.1": "0.5",
                    "task": "digits",
                    "direction": "",
                    "optimizer": "",
                    "preview": "1",
                },
            )
        )
    )
    assert "task: digits\n</pre>" in shown


def test_a_form_beyond_all_measure_is_a_problem(client: httpx.Client, worker: Any) -> None:
    many = "&".join(f"a{number}=1" for number in range(600))
    for body in (many, "task=a:b&args=" + "[" * 2000, "task=\ud800".encode("utf-8", "surrogatepass"), b"\xff=%00"):
        answer = client.post("/jobs/new", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
        assert answer.status_code == 422, body


def test_other_sites_can_change_nothing(client: httpx.Client, submit: Submit) -> None:
    job = f"/jobs/{submit()['id']}"
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://evil"}):
        for path in (f"{job}/cancel", f"/v1{job}/cancel", "/jobs/new"):
            assert client.post(path, headers=headers).status_code == 403, path
    own = {"Origin": str(client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert client.post(f"{job}/cancel", headers=own).status_code == 303
    assert client.get(f"/v1{job}").json()["state"] == "cancelled"
    assert client.post(f"{job}/delete", headers=own).headers["location"] == "/"
    assert client.get(job, headers=PERSON).status_code == 404


def test_problems_are_pages_for_people_alone(client: httpx.Client) -> None:
    assert "<h1>Not Found</h1>" in text(client.get("/jobs/nope", headers=PERSON))
    for path, accepted in (("/jobs/nope", "*/*"), ("/v1/jobs/nope", "text/html")):
        answer = client.get(path, headers={"Accept": accepted})
        assert answer.headers["content-type"] == "application/problem+json", path


def test_assets_are_kept_until_they_change(client: httpx.Client) -> None:
    for file in (FOLDER / "assets").iterdir():
        first = client.get(f"/assets/{file.name}")
        assert first.status_code == 200
        again = client.get(f"/assets/{file.name}", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, first.headers["cache-control"]) == (304, "no-cache")


def test_pages_that_name_no_icon_get_ours(client: httpx.Client) -> None:
    found = client.get("/favicon.ico", follow_redirects=True)
    assert (found.status_code, found.headers["content-type"]) == (200, "image/svg+xml")


def test_the_study_is_found_in_the_dashboard(client: httpx.Client, whole: str) -> None:
    assert client.get(f"/jobs/{whole}/study").status_code == 404


def test_a_browser_follows_from_where_the_page_stood(client: httpx.Client, whole: str) -> None:
    every = client.get(f"/v1/jobs/{whole}/events").text
    ids = re.findall(r"^id: (\d+)$", every, re.MULTILINE)
    rest = client.get(f"/v1/jobs/{whole}/events?after={ids[-3]}").text
    assert re.findall(r"^id: (\d+)$", rest, re.MULTILINE) == ids[-2:]
