"""Artifacts in an S3 bucket: one object for each address. A peer's bucket is read, an own one is written.

    backend = S3Backend(location)                       a peer's, from chain
    backend = S3Backend(location, allow_local=True)     on a local network; an own service in the own network

Reading is what a hostile location is good for, so a read is one signed GET (botocore's signature, aiohttp's connection)
under these rules: the address that is connected to is the one that was checked (template/addresses.py), after name
resolution, at every connection; no redirect, proxy, cookie or compression; the body ends at the caller's limit whatever
its headers say; a silence ends the request, and the caller cancels the whole at any moment, since no thread waits for a
peer. It needs a key that may get objects and nothing else. Writing, listing and deleting are boto3's, in threads, with
the keys of the operator's own bucket; where that lies is the operator's business, so it is not checked.

A busy service and a lost connection are tried again, a few times. What remains: a name server that is slow to answer
holds one of eight threads for as long as the system's resolver waits.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from ipaddress import ip_address
from typing import Any

import aiohttp
from aiohttp import ClientTimeout, hdrs
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from protocol.artifacts import is_object, require_object
from protocol.locations import Location
from protocol.synapse import safe_text
from template.addresses import check_address
from template.artifacts.errors import ArtifactError, ArtifactTooLarge, ArtifactUnavailable, EndpointRefused
from template.artifacts.threads import on_bucket, on_names
from template.errors import AddressRefused

CONNECT_TIMEOUT = 10.0  # seconds
SILENCE = 20.0  # seconds without a byte
ATTEMPTS = 3
PAUSE = 0.25  # seconds before the second attempt; doubled before each further one
PAGE = 1000  # names in one answer to a listing; S3 gives no more
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_KEYS_REMEDY = "check bucket, region and keys; the key must be one that may get objects"


class S3Backend:
    """The `Backend` of one location. See store.py for the methods. Use it in one event loop, and close it there."""

    def __init__(self, location: Location, *, allow_local: bool = False) -> None:
        self.location = location
        self.allow_local = allow_local
        self._session: aiohttp.ClientSession | None = None
        self._client: Any = None
        self._making = threading.Lock()

    def __str__(self) -> str:
        return f"{self.location.endpoint}/{self.location.bucket}"

    # Reading

    async def get(self, name: str, max_bytes: int) -> bytes:
        require_object(name)
        _check_literal(self.location, self.allow_local)
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                return await self._get(name, max_bytes)
            except _Passing as passing:
                reason = str(passing)
        raise ArtifactUnavailable(f"{self} gave no object in {ATTEMPTS} attempts: {reason}", remedy="try again later")

    async def _get(self, name: str, max_bytes: int) -> bytes:
        """One attempt. Raises _Passing when another may succeed."""
        url, headers = _signed(self.location, name)
        try:
            async with self._open().get(URL(url, encoded=True), headers=headers, allow_redirects=False) as response:
                if response.status != 200:
                    raise self._declined(response.status, name)
                return await _body(response, name, max_bytes)
        except AddressRefused as refused:
            raise EndpointRefused(f"{self} may not be called: {refused.message}", remedy=refused.remedy) from None
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            raise _Passing(safe_text(str(error) or type(error).__name__)) from None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=_CheckedResolver(self.allow_local), ttl_dns_cache=60),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=SILENCE),
                auto_decompress=False,
                trust_env=False,
                headers={hdrs.ACCEPT_ENCODING: "identity"},
                max_line_size=8190,
                max_field_size=8190,
            )
        return self._session

    def _declined(self, status: int, name: str) -> Exception:
        if status in _BUSY:
            return _Passing(f"status {status}")
        if status == 404:
            return ArtifactUnavailable(f"{self} has no object {name}", remedy="put the artifact there")
        if status in (401, 403):
            return ArtifactUnavailable(f"{self} refuses object {name} ({status})", remedy=_KEYS_REMEDY)
        remedy = "name the endpoint of the bucket's own region" if 300 <= status < 400 else ""
        return ArtifactUnavailable(f"{self} answered {status} for object {name}", remedy=remedy)

    # Writing

    async def put(self, name: str, data: bytes) -> None:
        require_object(name)
        await on_bucket(self._own, "put_object", {"Key": name, "Body": data})

    async def size(self, name: str) -> int | None:
        require_object(name)
        return await on_bucket(self._head, name)

    async def delete(self, name: str) -> None:
        require_object(name)
        await on_bucket(self._own, "delete_object", {"Key": name})

    async def list(self, limit: int, after: str = "") -> tuple[str, ...]:
        return await on_bucket(self._names, limit, after)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._client is not None:
            self._client.close()
            self._client = None

    def _own(self, operation: str, arguments: dict[str, Any]) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._boto(), operation)(Bucket=self.location.bucket, **arguments)
        except ClientError as error:
            status = error.response["ResponseMetadata"].get("HTTPStatusCode")
            remedy = "check bucket, region and keys; the key must be one that may write" if status in (401, 403) else ""
            raise _Answered(status, f"{self}: {safe_text(str(error))}", remedy=remedy) from None
        except BotoCoreError as error:
            raise ArtifactUnavailable(f"{self}: {safe_text(str(error))}") from None

    def _head(self, name: str) -> int | None:
        try:
            return int(self._own("head_object", {"Key": name})["ContentLength"])
        except _Answered as answered:
            if answered.status in (403, 404):  # S3 says 403 for "missing" to a key that may not list
                return None
            raise

    def _names(self, limit: int, after: str) -> tuple[str, ...]:
        found: list[str] = []
        while len(found) < limit:
            page = self._own("list_objects_v2", {"StartAfter": after, "MaxKeys": min(PAGE, limit)})
            keys = [entry["Key"] for entry in page.get("Contents", ())]
            found += filter(is_object, keys)
            if not keys or not page["IsTruncated"]:
                break
            after = keys[-1]
        return tuple(found[:limit])

    def _boto(self) -> Any:
        """boto3's client, made when it is first needed: that takes a fifth of a second."""
        with self._making:
            if self._client is None:
                self._client = _make_client(self.location)
            return self._client


class _Passing(Exception):
    """An attempt failed in a way that another may not."""


class _Answered(ArtifactUnavailable):
    """The service declined, with this HTTP status."""

    def __init__(self, status: int | None, message: str, *, remedy: str) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status


class _CheckedResolver(AbstractResolver):
    """Gives only those addresses of a name that may be called. The connection is made to what it gives."""

    def __init__(self, allow_local: bool) -> None:
        self._allow_local = allow_local

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await on_names(
            lambda: socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        )
        allowed: list[ResolveResult] = []
        refused: AddressRefused | None = None
        for kind, _, protocol, _, address in found:
            ip = str(address[0])
            try:
                check_address(ip, port, allow_local=self._allow_local)
            except AddressRefused as error:
                refused = error
                continue
            flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            allowed.append(
                ResolveResult(hostname=host, host=ip, port=port, family=kind, proto=protocol, flags=int(flags))
            )
        if not allowed:
            raise refused or OSError(f"{host} has no address")
        return allowed

    async def close(self) -> None:
        """Nothing is held."""


def _check_literal(location: Location, allow_local: bool) -> None:
    """An endpoint that is an address is never resolved, so it is checked here. Raises EndpointRefused."""
    try:
        ip_address(location.host)
    except ValueError:
        return
    try:
        check_address(location.host, location.port, allow_local=allow_local)
    except AddressRefused as refused:
        raise EndpointRefused(
            f"{location.endpoint} may not be called: {refused.message}", remedy=refused.remedy
        ) from None


def _signed(location: Location, name: str) -> tuple[str, dict[str, str]]:
    """URL and headers of a GET, by Signature Version 4."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest("GET", f"{location.endpoint}/{location.bucket}/{name}")
    S3SigV4Auth(Credentials(location.access_key, location.secret), "s3", location.region).add_auth(request)
    return request.url, dict(request.headers.items())


async def _body(response: aiohttp.ClientResponse, name: str, max_bytes: int) -> bytes:
    """At most `max_bytes`; what is longer closes the connection. Raises ArtifactTooLarge and aiohttp's errors."""
    parts: list[bytes] = []
    received = 0
    while received <= max_bytes and (part := await response.content.readany()):
        parts.append(part)
        received += len(part)
    if received > max_bytes:
        response.close()
        raise ArtifactTooLarge(f"object {name} has more than {max_bytes} bytes")
    return b"".join(parts)


def _make_client(location: Location) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=SILENCE,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        request_checksum_calculation="when_required",  # services other than Amazon's do not know the newer checksums
        response_checksum_validation="when_required",
    )
    try:
        session = boto3.session.Session(location.access_key, location.secret, region_name=location.region)
        return session.client("s3", endpoint_url=location.endpoint, config=config)
    except BotoCoreError as error:
        raise ArtifactError(f"boto3 cannot be used: {error}", remedy="check AWS_* variables and ~/.aws") from None
