"""``clr doctor``: whether all that the service needs is there, and what to do about what is not."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar

import httpx
from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.access.guard import is_loopback
from service.serving import CannotServe, listen
from service.settings import Settings
from service.store import tokens, workers
from service.store.database import Database, is_migrated
from service.store.errors import StoreError

T = TypeVar("T")

GIB = 2**30
LEAST_FREE = 1 * GIB
LITTLE_FREE = 5 * GIB

PROBE_S = 60.0
"""How long Ray or torch may take to start."""


@dataclass(frozen=True)
class Finding:
    """What one check found; ``mend`` says what to do unless all is well."""

    check: str
    state: Literal["ok", "warn", "fail"]
    found: str
    mend: str | None = None


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings, each as soon as it and those before it are there."""
    with ThreadPoolExecutor() as threads:
        yield from threads.map(lambda name: _finding(name, settings), CHECKS)


def _finding(name: str, settings: Settings) -> Finding:
    try:
        return CHECKS[name](settings)
    except (SQLAlchemyError, StoreError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        return Finding(name, "fail", reason, "start the database, mend CLR_DATABASE_URL, or run `clr migrate`")


def _database(settings: Settings) -> Finding:
    url = make_url(settings.database_url)
    if _is_to_be_made(settings):
        return Finding("database", "ok", f"{url.database} is not there yet; clr serve makes it")
    version = "sqlite_version()" if url.get_backend_name() == "sqlite" else "current_setting('server_version')"
    number = _read(settings, lambda session: session.scalar(text(f"SELECT {version}")))
    return Finding("database", "ok", f"{url.get_backend_name()} {number} at {url.render_as_string()}")


def _migrations(settings: Settings) -> Finding:
    if _is_to_be_made(settings):
        return Finding("migrations", "ok", "none yet; clr serve runs them")
    with closing(Database(settings.database_url)) as database:
        if is_migrated(database):
            return Finding("migrations", "ok", "at the newest")
    return Finding("migrations", "fail", "not at the newest that this version has", "run `clr migrate`")


def _tokens(settings: Settings) -> Finding:
    rows = [] if _is_to_be_made(settings) else _read(settings, tokens.listed)
    number = sum(row.revoked_at is None for row in rows)
    if number:
        return Finding("tokens", "ok", f"{number} in force")
    if rows:
        return Finding("tokens", "warn", "all are revoked: nobody is served", f"make one: {MAKE_TOKEN}")
    if is_loopback(settings.host):
        return Finding("tokens", "ok", f"none: {settings.host} is open to all on this machine")
    return Finding("tokens", "fail", f"none, and so {settings.host} is not listened on", f"make one: {MAKE_TOKEN}")


def _workers(settings: Settings) -> Finding:
    alive = [] if _is_to_be_made(settings) else _read(settings, workers.alive)
    hosts = ", ".join(sorted({row.host for row in alive}))
    if any(row.slots for row in alive):
        return Finding("workers", "ok", f"{len(alive)} alive: {hosts}")
    if alive:
        return Finding(
            "workers", "warn", f"{len(alive)} alive without Ray: {hosts}", "wait a little, or see their logs"
        )
    return Finding("workers", "warn", "none alive: jobs stay queued", "start `clr worker`, or `clr serve`")


def _ray(settings: Settings) -> Finding:
    where = settings.ray_address or "embedded"
    try:
        seen = _probe("ray")
    except ProbeFailed as error:
        mend = "check CLR_RAY_ADDRESS, RAY_AUTH_TOKEN and the network" if settings.ray_address else "see the message"
        return Finding("ray", "fail", f"{where}: {error}", mend)
    found = f"{where}: {seen['cpus']:g} CPUs, {seen['gpus']:g} GPUs"
    if settings.ray_address and os.environ.get("RAY_AUTH_MODE") != "token":
        return Finding("ray", "warn", f"{found}, without a token", "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH")
    return Finding("ray", "ok", found if settings.ray_address else "embedded: it starts")


def _gpu(_settings: Settings) -> Finding:
    try:
        seen = _probe("torch")
    except ProbeFailed as error:
        return Finding("gpu", "fail", f"torch: {error}", "install clr again: pip install -c constraints.txt clr")
    if seen["gpus"]:
        return Finding("gpu", "ok", f"torch {seen['version']} sees {', '.join(seen['gpus'])}")
    found = f"torch {seen['version']} sees none"
    if shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists():
        return Finding("gpu", "fail", f"{found}, but this machine has one", "install a torch built for its CUDA driver")
    return Finding("gpu", "ok", f"{found}, nor has this machine an NVIDIA driver: training is on CPUs")


def _disk(settings: Settings) -> Finding:
    folder = next(place for place in (settings.home, *settings.home.absolute().parents) if place.exists())
    if not os.access(folder, os.W_OK):
        return Finding("disk", "fail", f"{folder} cannot be written to", "set CLR_HOME to a folder of your own")
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free at {settings.home}"
    if free > LITTLE_FREE:
        return Finding("disk", "ok", found)
    mend = "make room, `clr prune --older-than 90d` for one, or move CLR_HOME"
    return Finding("disk", "warn" if free > LEAST_FREE else "fail", found, mend)


def _port(settings: Settings) -> Finding:
    place = f"port {settings.port} of {settings.host}"
    try:
        listen(settings.host, settings.port).close()
    except CannotServe as error:
        with suppress(httpx.HTTPError, ValueError):
            if httpx.get(f"http://{settings.host}:{settings.port}/healthz", timeout=2).json() == {"status": "ok"}:
                return Finding("port", "ok", f"{place}: a service answers there")
        return Finding("port", "fail", str(error), "set CLR_HOST and CLR_PORT to what is free")
    return Finding("port", "ok", f"{place} is free")


CHECKS: dict[str, Callable[[Settings], Finding]] = {
    "database": _database,
    "migrations": _migrations,
    "tokens": _tokens,
    "workers": _workers,
    "disk": _disk,
    "port": _port,
    "gpu": _gpu,
    "ray": _ray,
}
MAKE_TOKEN = "`clr token create --role admin --name NAME`"


class ProbeFailed(Exception):
    """A part of the worker did not start; its last line says why."""


def _probe(part: str) -> dict[str, Any]:
    """What a part of the worker sees, asked in a process of its own: it may hang, crash or leave threads behind."""
    command = [sys.executable, "-P", "-m", "worker.probe", part]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with TemporaryDirectory(prefix="clr", ignore_cleanup_errors=True) as home:  # Ray's last lines may still come
        environment = os.environ | {"CLR_HOME": home}
        with subprocess.Popen(command, start_new_session=True, env=environment, **pipes) as process:
            try:
                out, err = process.communicate(timeout=PROBE_S)
            except subprocess.TimeoutExpired:
                raise ProbeFailed(f"no answer within {PROBE_S:g} s") from None
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        raise ProbeFailed((err.strip().splitlines() or [f"exit code {process.returncode}"])[-1])
    seen: dict[str, Any] = json.loads(out.splitlines()[-1])
    return seen


def _read(settings: Settings, query: Callable[[Session], T]) -> T:
    with closing(Database(settings.database_url)) as database, database.read() as session:
        return query(session)


def _is_to_be_made(settings: Settings) -> bool:
    url = make_url(settings.database_url)
    return url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists()
