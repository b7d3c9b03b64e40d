import httpx
import optuna
import pytest

from service.settings import Settings
from service.store import studies


@pytest.fixture
def study_id(settings: Settings) -> int:
    """A study of one trial."""
    study = optuna.create_study(study_name="a-job", storage=studies.storage(settings.database_url))
    study.add_trial(
        optuna.trial.create_trial(
            params={"ratio": 3.0}, distributions={"ratio": optuna.distributions.FloatDistribution(1, 9)}, value=0.9
        )
    )
    return study._study_id


def test_the_pages_and_what_they_load_are_served(client: httpx.Client) -> None:
    for path in ("/dashboard", "/dashboard/", "/dashboard/studies/1"):
        answer = client.get(path)
        assert (answer.status_code, "/static/bundle.js" in answer.text) == (200, True)
    assert len(client.get("/static/bundle.js").content) > 100_000
    head = client.head("/dashboard")
    assert (head.status_code, head.content) == (200, b"")


def test_studies_are_shown_with_their_trials(client: httpx.Client, study_id: int) -> None:
    summaries = client.get("/api/studies").json()["study_summaries"]
    assert [summary["study_name"] for summary in summaries] == ["a-job"]
    trials = client.get(f"/api/studies/{study_id}").json()["trials"]
    assert [trial["values"] for trial in trials] == [[0.9]]


def test_nothing_can_be_changed_through_it_without_a_token(
    client: httpx.Client, study_id: int, settings: Settings
) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for path in ("/api/studies", f"/api/studies/{study_id}", f"/api/studies/{study_id}/rename", "/dashboard"):
            answer = client.request(method, path, json={"study_name": "x"})
            assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json"), path
            assert "clr token create" in answer.json()["detail"]
    assert optuna.get_all_study_names(studies.storage(settings.database_url)) == ["a-job"]
