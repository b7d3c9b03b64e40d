import asyncio
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import Settings

START = """
import asyncio, sys
from service.app import create_app
from service.settings import Settings
app = create_app(Settings(database_url=sys.argv[1]))
async def start():
    async with app.router.lifespan_context(app):
        app.openapi()
asyncio.run(start())
import clr.tuning.recommendation, clr.charts
print(sorted({"torch", "ray"} & set(sys.modules)))
"""


def test_it_does_not_start_on_a_database_that_is_not_migrated(empty_database_url: str, tmp_path: Path) -> None:
    app = create_app(Settings(home=tmp_path, database_url=empty_database_url))

    async def start() -> None:
        async with app.router.lifespan_context(app):
            pass

    with pytest.raises(RuntimeError, match="run `clr migrate`"):
        asyncio.run(start())


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_its_process_imports_neither_torch_nor_ray(database_url: str) -> None:
    done = subprocess.run([sys.executable, "-c", START, database_url], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_documentation_is_served(client: httpx.Client, app: FastAPI) -> None:
    assert "/openapi.json" in client.get("/docs").text
    assert client.get("/openapi.json").json() == app.openapi()
