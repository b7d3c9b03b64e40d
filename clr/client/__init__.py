"""The client of a clr service, over REST. Needs no torch."""

from clr.client.asynchronous import AsyncClient, AsyncJob
from clr.client.calls import ClientError
from clr.client.service_run import AsyncServiceRun, ServiceRun
from clr.client.sync import Client, Job

__all__ = ["AsyncClient", "AsyncJob", "AsyncServiceRun", "Client", "ClientError", "Job", "ServiceRun"]
