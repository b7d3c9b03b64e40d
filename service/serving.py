"""Starts the API, and for ``clr serve`` all that belongs to a service on one machine."""

import errno
import logging
import socket
import sys
from collections.abc import Callable
from contextlib import closing

from service.settings import Settings
from service.supervisor import Child, Supervisor

log = logging.getLogger(__name__)

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
        adopt_bootstrap_token(settings)
        check_tokens(settings.database_url, listener)
        fd = listener.fileno()
        api = Child("the API", [*_PYTHON, "service.cli", "api", "--fd", str(fd)], pass_fds=[fd])
        say(f"clr is at {address(listener)} (Ctrl-C stops it)")
        Supervisor([api, Child("the worker", [*_PYTHON, "worker"])], say).run()
        say("stopped")


def run_api(settings: Settings, fd: int | None = None) -> None:
    """Run the API in this process, on the inherited socket ``fd`` or on one of its own."""
    import optuna
    import uvicorn

    from service import logs
    from service.app import create_app
    from service.connection import Connection

    logs.configure(settings)
    check_schema(settings.database_url)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with listen(settings.host, settings.port) if fd is None else socket.socket(fileno=fd) as listener:
        check_tokens(settings.database_url, listener)
        config = uvicorn.Config(
            create_app(settings.model_copy(update={"host": listener.getsockname()[0]})),
            http=Connection,
            ws="none",
            log_config=None,
            log_level=settings.log_level,
            access_log=settings.log_level == "debug",
            timeout_graceful_shutdown=GRACE_S,
        )
        if fd is None:  # else whoever handed it down has said so
            log.info("listening at %s", address(listener))
        server = uvicorn.Server(config)
        server.run(sockets=[listener])
    if not server.started:
        raise CannotServe("the API could not be started; the lines above say why")


def check_schema(database_url: str) -> None:
    """Refuse to start on a database that is not migrated, or that does not answer."""
    from service.store.database import Database, is_migrated

    with closing(Database(database_url)) as database:
        if not is_migrated(database):
            raise CannotServe("the database is not at the newest migration: run `clr migrate` first")


def adopt_bootstrap_token(settings: Settings) -> None:
    """Store the token of ``bootstrap_token_file``, if there is such a file and it is not stored yet."""
    if settings.bootstrap_token_file is None:
        return
    from service.store import audit, tokens
    from service.store.database import Database

    token = settings.bootstrap_token_file.read_text(encoding="utf-8").strip()
    with closing(Database(settings.database_url)) as database, database.begin() as session:
        if tokens.adopt(session, token):
            audit.record(session, None, "token create", detail=f"{tokens.BOOTSTRAP} (admin)")


def check_tokens(database_url: str, listener: socket.socket) -> None:
    """Refuse to be reached from elsewhere as long as anybody would be let in."""
    from service.access.guard import is_loopback
    from service.store import tokens
    from service.store.database import Database

    host = listener.getsockname()[0]
    if is_loopback(host):
        return
    with closing(Database(database_url)) as database, database.read() as session:
        if not tokens.any_exist(session):
            raise CannotServe(
                f"listening on {host} would let anybody who reaches it train here: make a token first "
                "(clr token create --role admin --name NAME), or listen on 127.0.0.1"
            )


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
