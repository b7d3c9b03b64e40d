"""Settings: the environment's variables that begin with ``CLR_``, and their defaults."""

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import make_url

Network = IPv4Network | IPv6Network


def _split(separator: str) -> BeforeValidator:
    """A list as the environment writes it."""

    def parts(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return [part for one in value.split(separator) if (part := one.strip())]

    return BeforeValidator(parts)


Folders = Annotated[tuple[Annotated[Path, AfterValidator(Path.expanduser)], ...], NoDecode, _split(os.pathsep)]
Modules = Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*$")], ...], NoDecode, _split(",")]
Networks = Annotated[tuple[Network, ...], NoDecode, _split(",")]
Variables = Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*\*?$")], ...], NoDecode, _split(",")]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="CLR_", frozen=True, validate_default=True)

    home: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        Path("~/.clr"), description="folder of the SQLite file, code bundles, Ray's temporary files and logs"
    )
    database_url: str = Field(
        default_factory=lambda given: f"sqlite:///{given['home']}/clr.db",
        description="sqlite:///<path> or postgresql://<user>:<password>@<host>/<database>",
    )
    database_password_file: Path | None = Field(None, description="file with the password that database_url leaves out")
    host: str = Field("127.0.0.1", description="address the API binds to")
    port: int = Field(8000, ge=0, le=65535, description="port the API binds to")
    ray_address: str | None = Field(None, description="address of a Ray cluster; unset: Ray embedded in the worker")
    data: Folders | None = Field(
        None,
        description="folders that paths in jobs' arguments may lie in, separated by `:`; unset: `data` in home, and "
        "for jobs that came without a token, to a service that has none, all that the worker may read",
    )
    task_modules: Modules = Field(
        (), description="modules whose functions jobs may name as task, as `module:function`; each with all below it"
    )
    task_env: Variables = Field(
        (), description="variables that the processes that train see besides the usual ones; `*` for any end"
    )
    allow_code: bool = Field(
        False, description="whether code may be uploaded and commands submitted, and workers run them"
    )
    code_limit: int = Field(16 * 2**20, ge=1, description="bytes an uploaded zip of code may have")
    code_requirements: Literal["refuse", "ignore", "install"] = Field(
        "refuse", description="what becomes of a requirements.txt in uploaded code"
    )
    lease_s: float = Field(10.0, gt=0, le=900, description="seconds after which a silent worker's job is taken over")
    poll_s: float = Field(0.5, gt=0, description="seconds between a worker's looks for a job")
    checkpoints: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        default_factory=lambda given: given["home"] / "checkpoints",
        description="folder where runs under way save how they stand; on a cluster best one that all nodes share",
    )
    checkpoint_seconds: float = Field(60.0, ge=0, description="seconds between a run's checkpoints; 0: none")
    cpus: int | None = Field(None, ge=1, description="CPUs of embedded Ray; unset: all")
    body_limit: int = Field(2**20, ge=1, description="bytes a request's body may have")
    rate_limit: float = Field(
        100, gt=0, allow_inf_nan=False, description="requests a second of one token, to each API process"
    )
    queued_limit: int = Field(1000, ge=1, description="jobs that one token may have queued")
    running_limit: int | None = Field(None, ge=1, description="jobs of one token that run at once; unset: no limit")
    bootstrap_token_file: Path | None = Field(
        None, description="file with the token of the administrator `bootstrap`, stored by clr migrate and clr serve"
    )
    notify_networks: Networks = Field(
        (), description="networks besides the public ones that notices may go to, as 10.1.0.0/16,127.0.0.1"
    )
    notify_secret_file: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        default_factory=lambda given: given["home"] / "notify-secret",
        description="file with the key that notices are signed with; made when the first one is sent",
    )
    tracking: Annotated[str, Field(pattern=r"^(mlflow|wandb|tensorboard):.")] | None = Field(
        None,
        description="where workers write each job that succeeded, as `mlflow:URI`, `wandb:FOLDER` or "
        "`tensorboard:FOLDER`; and where `clr track` does",
    )
    log_format: Literal["text", "json"] = Field("text", description="lines for people, or a JSON object a line")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")

    def reach(self, submitted_by: str | None) -> dict[str, list[str]]:
        """What a job may name, by the token it came with: the ``folders`` of its paths, and ``modules``."""
        folders = self.data
        if folders is None:
            # Without a token it came over loopback, from who may read as much as this process.
            folders = (self.home / "data", *(() if submitted_by else (Path.cwd(), Path("/"))))
        return {"folders": [str(folder.absolute()) for folder in folders], "modules": list(self.task_modules)}

    @model_validator(mode="after")
    def _password_from_its_file(self) -> Self:
        if self.database_password_file is not None:
            password = self.database_password_file.read_text(encoding="utf-8").strip()
            url = make_url(self.database_url).set(password=password)
            object.__setattr__(self, "database_url", url.render_as_string(hide_password=False))
        return self
