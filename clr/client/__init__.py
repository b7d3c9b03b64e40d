"""The client of a clr service, over REST. Needs no torch."""

from clr.client.asynchronous import AsyncClient, AsyncJob
from clr.client.calls import ClientError
from clr.client.sync import Client, Job

__all__ = ["AsyncClient", "AsyncJob", "Client", "ClientError", "Job"]
