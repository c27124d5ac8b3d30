"""The adapter to a real API server, over the client of the `kubernetes` package.

Paths are known beforehand and objects stay plain, so neither discovery nor models are paid for.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio import client

from openclaw_operator import names
from openclaw_operator.cluster.port import ApiError, Listing
from openclaw_operator.decide import Event
from openclaw_operator.names import Key, Kind, Manifest
from openclaw_operator.telemetry import Telemetry

_TIMEOUT = 30.0  # seconds
_PAGE = 500
_WATCH = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "600"}
# Bookmarks come every minute: a stream that is silent for longer is dead, whatever the socket says.
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=90)
_AS_OPERATOR = {"fieldManager": names.FIELD_MANAGER}
_APPLY = {**_AS_OPERATOR, "force": "true"}
_MAX_EVENT_MESSAGE = 1024  # characters, https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/


class KubernetesCluster:
    """A cluster behind an API server."""

    def __init__(self, api: client.ApiClient, *, namespaces: tuple[str, ...], telemetry: Telemetry) -> None:
        """
        Args:
            api: Where and as whom to ask.
            namespaces: Namespaces to list; empty means all.
            telemetry: Where requests are counted.
        """
        self._api = api
        self._namespaces = namespaces
        self._telemetry = telemetry

    async def list(self, kind: Kind) -> Listing:
        items: list[Manifest] = []
        version = ""
        for namespace in self._namespaces or ("",):
            token = ""
            while True:
                query = {**_selector(kind), "limit": str(_PAGE), **({"continue": token} if token else {})}
                page = await self._request("GET", kind, path=_path(kind, namespace), query=query)
                items += page["items"]
                # The earliest: a watch of any of the namespaces may go on from it.
                version = version or page["metadata"]["resourceVersion"]
                token = page["metadata"].get("continue", "")
                if not token:
                    break
        for item in items:
            item.setdefault("apiVersion", kind.api_version)
            item.setdefault("kind", kind.name)
        return Listing(kind, tuple(items), version)

    async def service(self, key: Key) -> Manifest | None:
        kind = names.SERVICE_KIND
        try:
            return await self._request("GET", kind, path=_path(kind, key.namespace, key.name))
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    async def watch(self, kind: Kind, namespace: str, *, since: str) -> AsyncIterator[tuple[str, str, Manifest | None]]:
        """Events after a resource version, as (version, type, object); a bookmark has no object.

        Ends when the server ends it, which it does after some minutes. Raises `ApiError`: 410 where the version is
        too old to go on from.
        """
        query = {**_selector(kind), **_WATCH, "resourceVersion": since}
        try:
            answer = await self._send("GET", f"{_path(kind, namespace)}?{urlencode(query)}", timeout=_WATCH_TIMEOUT)
            if answer.status >= 300:
                raise _error(answer.status, await answer.read(), retry_after=answer.headers.get("Retry-After"))
            try:
                async for line in _lines(answer.response.content):
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError(str(event["object"].get("message")), status=event["object"].get("code", 0))
                    manifest = event["object"]
                    version = manifest["metadata"]["resourceVersion"]
                    yield version, event["type"], None if event["type"] == "BOOKMARK" else manifest
            finally:
                answer.response.close()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(f"the watch broke: {error or type(error).__name__}", status=0) from error

    async def apply(self, manifest: Manifest) -> Manifest:
        kind = names.KINDS[manifest["kind"]]
        metadata = manifest["metadata"]
        path = _path(kind, metadata["namespace"], metadata["name"])
        return await self._request("PATCH", kind, path=path, query=_APPLY, body=manifest)

    async def delete(self, manifest: Manifest) -> None:
        kind = names.KINDS[manifest["kind"]]
        metadata = manifest["metadata"]
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": metadata["uid"]},
            "propagationPolicy": "Background",
        }
        path = _path(kind, metadata["namespace"], metadata["name"])
        try:
            await self._request("DELETE", kind, path=path, body=options)
        except ApiError as error:
            # 409: another object has taken the name since it was observed; that one is not ours to delete.
            if error.status not in {404, 409}:
                raise

    async def update_status(self, service: Manifest, status: Manifest) -> Manifest:
        kind = names.SERVICE_KIND
        observed = service["metadata"]
        identity = {field: observed[field] for field in ("name", "namespace", "uid", "resourceVersion")}
        body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": identity, "status": status}
        path = _path(kind, observed["namespace"], observed["name"]) + "/status"
        return await self._request("PUT", kind, path=path, query=_AS_OPERATOR, body=body)

    async def emit(self, service: Manifest, event: Event) -> None:
        metadata = service["metadata"]
        kind = Kind("v1", "Event", "events")
        body = {
            "apiVersion": kind.api_version,
            "kind": kind.name,
            "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": names.SERVICE_KIND.api_version,
                "kind": names.SERVICE_KIND.name,
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:_MAX_EVENT_MESSAGE],
            "source": {"component": names.FIELD_MANAGER},
            "reportingComponent": names.FIELD_MANAGER,
            "firstTimestamp": event.at,
            "lastTimestamp": event.at,
            "count": 1,
        }
        await self._request("POST", kind, path=_path(kind, metadata["namespace"]), body=body)

    async def _request(
        self,
        verb: str,
        kind: Kind,
        *,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
    ) -> Manifest:
        status = 0
        try:
            response = await self._send(verb, path + (f"?{urlencode(query)}" if query else ""), body=body)
            status, text = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(f"no answer from the API server: {error or type(error).__name__}", status=0) from error
        finally:
            self._telemetry.requests.labels(verb, kind.name, str(status)).inc()
        if status >= 300:
            raise _error(status, text, retry_after=response.headers.get("Retry-After"))
        return dict(orjson.loads(text))

    async def _send(self, verb: str, target: str, *, body: Manifest | None = None, timeout: Any = _TIMEOUT) -> Any:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/apply-patch+yaml" if verb == "PATCH" else "application/json"
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], target, verb, body)
        url = self._api.configuration.host + target
        return await self._api.call_api(verb, url, headers, body, _request_timeout=timeout)


def _selector(kind: Kind) -> dict[str, str]:
    return {} if kind is names.SERVICE_KIND else {"labelSelector": names.SERVICE_LABEL}


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The lines of a stream, however long one is."""
    rest = b""
    async for chunk in content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line


def _path(kind: Kind, namespace: str, name: str = "") -> str:
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{scope}/{kind.plural}" + (f"/{name}" if name else "")


def _error(status: int, text: bytes, *, retry_after: str | None) -> ApiError:
    """The API server's answer as an error; what stands in front of it may answer with anything."""
    try:
        answer = orjson.loads(text)
        message, reason = str(answer["message"]), str(answer.get("reason") or "")
    except (ValueError, KeyError, TypeError):
        message, reason = text.decode(errors="replace")[:500], ""
    after = float(retry_after) if retry_after and retry_after.isdigit() else None
    return ApiError(message, status=status, reason=reason, retry_after=after)
