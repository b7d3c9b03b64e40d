"""Tells jobs' own addresses of their first bounds and of their end: signed, tried again, and only where it may go.

A request goes to the address that was checked, whatever the name resolves to a moment later, and follows no redirect.
What is signed, and how, is the Standard Webhooks' way.
"""

import base64
import hashlib
import hmac
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path

import anyio
import httpx
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from service.settings import Network, Settings
from service.store import notices
from service.store.database import Database
from service.store.models import NoticeRow

log = logging.getLogger(__name__)

Address = IPv4Address | IPv6Address

LOOK_EVERY_S = 1.0
ANSWER_WITHIN_S = 10.0
"""How long one attempt may take, name resolution included."""

AT_ONCE = 16
PREFIX = "whsec_"
TRANSLATED = IPv6Network("64:ff9b::/96")
"""Where a network translates to IPv4: the last 32 bits are the address behind."""


class Undeliverable(Exception):
    """An attempt failed; the message says why, in words that give away nothing of the receiver."""


async def deliver_all(database: Database, settings: Settings) -> None:
    """Deliver what is due, for ever; any number of processes may."""
    while True:
        try:
            due = await run_in_threadpool(_due, database)
            async with anyio.create_task_group() as attempts:
                for notice, url in due:
                    attempts.start_soon(_attempt, database, settings, notice, url)
        except* SQLAlchemyError as error:
            log.warning("the database does not answer: %s", error.exceptions[0])
        await anyio.sleep(LOOK_EVERY_S)


def _due(database: Database) -> list[tuple[NoticeRow, str]]:
    with database.read() as session:
        found = notices.due(session, AT_ONCE)
    if not found:
        return []
    with database.begin() as session:
        return [(notice, url) for notice, url in found if notices.begin(session, notice)]


async def _attempt(database: Database, settings: Settings, notice: NoticeRow, url: str) -> None:
    try:
        with anyio.fail_after(ANSWER_WITHIN_S):
            await _post(notice, url, settings)
    except (Undeliverable, TimeoutError, OSError, httpx.HTTPError) as error:
        reason = str(error) if isinstance(error, Undeliverable) else type(error).__name__
        log.warning("a notice was not delivered: job=%s: %s", notice.job_id, reason, extra={"job": notice.job_id})
        await run_in_threadpool(_note, database, notice, reason)
    else:
        await run_in_threadpool(_note, database, notice, None)


def _note(database: Database, notice: NoticeRow, error: str | None) -> None:
    with database.begin() as session:
        if error is None:
            notices.delivered(session, notice)
        else:
            notices.failed(session, notice, error)


async def _post(notice: NoticeRow, url: str, settings: Settings) -> None:
    target = httpx.URL(url)
    address = await _resolved(target, settings.notify_networks)
    body = json.dumps(notice.body, ensure_ascii=False).encode()
    headers = signed(notice.id, int(time.time()), body, key(settings.notify_secret_file))
    headers |= {"Content-Type": "application/json", "Host": target.netloc.decode(), "User-Agent": "clr"}
    async with (
        httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=ANSWER_WITHIN_S) as client,
        client.stream(
            "POST",
            target.copy_with(host=str(address)),
            content=body,
            headers=headers,
            extensions={"sni_hostname": target.host},  # whose certificate is asked for, and checked
        ) as answer,
    ):
        if not answer.is_success:
            raise Undeliverable(f"HTTP {answer.status_code}")


async def _resolved(target: httpx.URL, networks: Sequence[Network]) -> Address:
    """The address to go to; every one that the name has must be allowed."""
    try:
        found = await anyio.getaddrinfo(target.host, None, type=socket.SOCK_STREAM)
    except OSError:
        raise Undeliverable("its host has no address") from None
    addresses = [ip_address(entry[4][0]) for entry in found]
    if not addresses or not all(may_go_to(address, networks) for address in addresses):
        raise Undeliverable(FORBIDDEN)
    return addresses[0]


FORBIDDEN = "must lead to the public internet, or to a network in CLR_NOTIFY_NETWORKS of the service"


def may_go_to(address: Address, networks: Sequence[Network]) -> bool:
    """Whether a notice may be sent to ``address``: a public one, or one of ``networks``."""
    address = _behind(address)
    return any(address in network for network in networks) or (address.is_global and not address.is_multicast)


def _behind(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address


def literal_may_be_told(url: str, networks: Sequence[Network]) -> bool:
    """Whether an address given in digits is allowed; names are resolved when there is something to tell."""
    try:
        return may_go_to(ip_address(httpx.URL(url).host), networks)
    except ValueError:
        return httpx.URL(url).host != "localhost" or may_go_to(ip_address("127.0.0.1"), networks)


def signed(notice_id: str, timestamp: int, body: bytes, secret: bytes) -> dict[str, str]:
    """The headers by which a receiver knows who sent a notice, when, and which it is."""
    message = b".".join((notice_id.encode(), str(timestamp).encode(), body))
    signature = base64.b64encode(hmac.digest(secret, message, hashlib.sha256)).decode()
    return {"webhook-id": notice_id, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{signature}"}


def key(file: Path) -> bytes:
    """The key in ``file``, which is made where there is none."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        made = f"{PREFIX}{base64.b64encode(secrets.token_bytes(24)).decode()}\n"
        draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
        draft.touch(mode=0o600)
        draft.write_text(made, encoding="utf-8")
        with suppress(FileExistsError):  # two made one at once: the first is the key
            os.link(draft, file)
        draft.unlink()
    text = file.read_text(encoding="utf-8").strip()
    try:
        return base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except ValueError:
        raise Undeliverable(f"{file.name} must hold {PREFIX} and a key in base64") from None
