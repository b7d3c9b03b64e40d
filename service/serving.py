"""Starts the API, and for ``clr serve`` all that belongs to a service on one machine."""

import errno
import socket
import sys
from collections.abc import Callable

from service.settings import Settings
from service.supervisor import Child, Supervisor

BACKLOG = 2048
GRACE_S = 4
"""How long open requests, such as streams of events, may go on once the API is told to stop."""


class CannotServe(Exception):
    """The API cannot be started; the message says why and what to do."""


def serve(settings: Settings, say: Callable[[str], object]) -> None:
    """Run API and worker as child processes until SIGINT or SIGTERM."""
    from service.store.database import migrate

    with listen(settings.host, settings.port) as listener:
        migrate(settings.database_url)
        fd = listener.fileno()
        api = Child("the API", [*_PYTHON, "service.cli", "api", "--fd", str(fd)], pass_fds=[fd])
        say(f"clr is at {address(listener)} (Ctrl-C stops it)")
        Supervisor([api, Child("the worker", [*_PYTHON, "worker"])], say).run()
        say("stopped")


def run_api(settings: Settings, fd: int | None = None) -> None:
    """Run the API in this process, on the inherited socket ``fd`` or on one of its own."""
    import optuna
    import uvicorn

    from service.app import create_app

    check_schema(settings.database_url)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    listener = listen(settings.host, settings.port) if fd is None else socket.socket(fileno=fd)
    config = uvicorn.Config(
        create_app(settings),
        log_level=settings.log_level,
        access_log=settings.log_level == "debug",
        timeout_graceful_shutdown=GRACE_S,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        raise CannotServe("the API could not be started; the lines above say why")


def check_schema(database_url: str) -> None:
    """Refuse to start on a database that is not migrated, or that does not answer."""
    from service.store.database import Database, is_migrated

    database = Database(database_url)
    try:
        if not is_migrated(database):
            raise CannotServe("the database is not at the newest migration: run `clr migrate` first")
    finally:
        database.dispose()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. ``clr serve`` hands it down, so that requests wait while the API is started again."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotServe(
                f"port {port} of {host} is taken by another process: stop that one, or choose another with --port"
            ) from error
        raise CannotServe(f"cannot listen on port {port} of {host}: {error.strerror or error}") from error
    # Made again from its number it knows its protocol; asyncio sets TCP_NODELAY on none that does not.
    return socket.socket(fileno=listener.detach())


def address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


# -P: a folder named `service` or `worker` where the command is typed is the user's, not this project's.
_PYTHON = [sys.executable, "-P", "-m"]
