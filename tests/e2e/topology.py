"""The services of docker-compose.yml as processes of this machine: the same commands in the same environment."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import yaml

from tests.conftest import wait_until_gone

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
BIN = Path(sys.executable).parent
DATABASE = COMPOSE["services"]["api"]["environment"]["CLR_DATABASE_URL"]
ADDRESS = "127.0.0.2"
"""Stands for the network that the containers share. (Ray takes 127.0.0.1 for a name of the machine's own address.)"""


def resolve(text: str) -> str:
    """``text`` with its variables replaced as compose does where none is set."""
    return re.sub(r"\$\{\w+(?::?-([^}]*)|:\?[^}]*)\}", lambda match: match[1] or "secret", text)


class Topology:
    """Starts services, and ends all that they left running.

    Args:
        folder: for secrets, Ray's sessions and logs; its path must be short.
        url: of a database.
        here: what else of the file this machine has otherwise: text -> text.
    """

    def __init__(self, folder: Path, url: str, here: dict[str, str]) -> None:
        self.folder, self.url, self.mark = folder, url, uuid4().hex
        self.here = {DATABASE: url, "/run/secrets": str(folder), "ray:": f"{ADDRESS}:"} | here
        self.containers: list[Container] = []
        for name in COMPOSE["secrets"]:
            (folder / name).write_text(uuid4().hex * 2)

    def start(self, service: str, **environment: str) -> "Container":
        """Start one container of a service."""
        given = COMPOSE["services"][service]
        command = [*given.get("entrypoint", ["clr"]), *given["command"]]
        own = {name: self._here(resolve(value)) for name, value in given["environment"].items()}
        container = Container(f"{service}-{len(self.containers)}-{self.mark}", self.folder)
        container.run([self._here(part) for part in command], own | environment)
        self.containers.append(container)
        return container

    def stop(self) -> None:
        """End every process of every container."""
        kill(self.mark)
        for container in self.containers:
            container.process.wait(30)

    def _here(self, text: str) -> str:
        for there, here in self.here.items():
            text = text.replace(there, here)
        return text


class Container:
    """Processes told from all others by what Docker sets too, their HOSTNAME."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.log = name, folder, folder / f"{name}.log"

    def run(self, command: list[str], environment: dict[str, str]) -> None:
        if command[0] == "ray":
            command[2:2] = [f"--node-ip-address={ADDRESS}", "--num-cpus=1"]
        elif command[0] == "sh":
            command[-1] = command[-1].replace("ray start", f"ray start --node-ip-address={ADDRESS}")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CLR_", "RAY_"))}
        own = {"HOSTNAME": self.name, "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_TMPDIR": str(self.folder)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=inherited | own | environment, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def trains(self) -> bool:
        """Whether Ray runs a training in it; it names the processes that it has for what they do."""
        return any(name(process).startswith("ray::train") for process in family_of(self.name))

    def kill(self) -> None:
        """End all its processes at once, as when its machine fails."""
        kill(self.name)


def kill(mark: str) -> None:
    """End all processes whose HOSTNAME contains ``mark``."""
    family = family_of(mark)
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until_gone(family)


def family_of(mark: str) -> list[psutil.Process]:
    """Those of that HOSTNAME, and all below them: some of Ray's write a title over their environment."""
    family = {process for process in psutil.process_iter() if mark in hostname(process)}
    for process in list(family):
        with suppress(psutil.Error):
            family.update(process.children(recursive=True))
    return list(family)


def name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return process.name()
    return ""


def hostname(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return process.environ().get("HOSTNAME", "")
    return ""
