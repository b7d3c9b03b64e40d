import pytest

from service.access.rights import needed


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/healthz", None),
        ("GET", "/readyz", None),
        ("GET", "/signin", None),
        ("POST", "/signin", None),
        ("POST", "/signout", None),
        ("GET", "/assets/style.css", None),
        ("GET", "/assetsx", "read"),
        ("GET", "/favicon.ico", None),
        ("GET", "/metrics", "read"),
        ("GET", "/v1/jobs", "read"),
        ("HEAD", "/docs", "read"),
        ("GET", "/nowhere", "read"),
        ("POST", "/v1/jobs", "submit"),
        ("POST", "/v1/jobs/x/cancel", "submit"),
        ("PUT", "/v1/jobs/x/range-test", "submit"),
        ("PUT", "/v1/jobs/x/trials/3/result", "submit"),
        ("PATCH", "/nowhere", "submit"),
        ("DELETE", "/v1/jobs/x", "admin"),
        ("POST", "/jobs/x/delete", "admin"),
        ("POST", "/jobs/x/cancel", "submit"),
        ("PUT", "/v1/code/abc", "admin"),
        ("GET", "/v1/code/abc", "read"),
        ("GET", "/v1/audit", "admin"),
        ("GET", "/v1/auditor", "read"),
        ("GET", "/api/studies", "read"),
        ("POST", "/api/studies", "admin"),
        ("PUT", "/dashboard", "admin"),
    ],
)
def test_each_request_needs_its_role(method: str, path: str, role: str | None) -> None:
    assert needed(method, path) == role
