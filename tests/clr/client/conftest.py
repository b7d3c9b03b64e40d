"""The client against a real API, and against one whose connections fail as told."""

import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from clr.client.sync import Client
from service.app import create_app
from service.settings import Settings
from service.store import jobs, studies, workers
from service.store.database import Database
from service.store.jobs import Lease

DIGITS = {"name": "digits", "doc": "Handwritten digits.", "schema": {"type": "object", "properties": {}}}


class Api:
    """The real API on a port of its own, over one database; can be stopped and started again."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        app = create_app(Settings(database_url=self.database_url, allow_code=True))
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.listener.close()
        assert not self.thread.is_alive()


class Relay:
    """Passes connections on to the API, but spoils the first ones as ``faults`` say; keeps what clients sent."""

    def __init__(self, port: int, faults: list[str]) -> None:
        self.faults, self.requests = faults, list[bytes]()
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, socket.create_connection(("127.0.0.1", self._port)) as api:
                fault = self.faults.pop(0) if self.faults else "none"
                self._pass_on(connection, api, fault)

    def _pass_on(self, connection: socket.socket, api: socket.socket, fault: str) -> None:
        request = connection.recv(65536)
        head, _, body = request.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        while length and len(body) < int(length[1]):
            more = connection.recv(65536)
            request, body = request + more, body + more
        self.requests.append(request)
        if fault == "503":
            connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        api.sendall(request.replace(b"Connection: keep-alive", b"Connection: close"))
        answer = b"".join(iter(lambda: api.recv(65536), b""))
        if fault == "none":
            connection.sendall(answer)


@pytest.fixture
def api(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Api]:
    shutil.copy(migrated_sqlite, tmp_path / "clr.db")
    api = Api(f"sqlite:///{tmp_path}/clr.db")
    yield api
    if api.thread.is_alive():
        api.stop()
    studies.dispose()


@pytest.fixture
def store(api: Api) -> Iterator[Database]:
    database = Database(api.database_url)
    with database.begin() as session:
        workers.publish(session, owner="w", host="h", slots={"cpus": 1}, tasks=[DIGITS])
    yield database
    database.dispose()


@pytest.fixture
def client(api: Api, store: Database) -> Iterator[Client]:
    with Client(api.url) as client:
        yield client


@pytest.fixture
def relay(api: Api, store: Database) -> Iterator[Relay]:
    relay = Relay(api.port, [])
    yield relay
    relay.close()


def claim(store: Database) -> Lease:
    with store.begin() as session:
        claimed = jobs.claim(session, owner="w", lease_s=60)
    assert claimed is not None
    return claimed[1]
