"""Envoy's configuration: services and the addresses of their ready pods -> files by name. Pure.

Envoy watches the folder: listeners (lds), routes (rds), clusters (cds) and, one file per cluster, endpoints (eds).
https://www.envoyproxy.io/docs/envoy/latest/configuration/overview/examples
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openclaw_operator import names
from openclaw_operator.names import Key

Json = dict[str, Any]

_TYPE = "type.googleapis.com/envoy."
_CLUSTER = "config.cluster.v3.Cluster"
_UPSTREAM_IDLE = "20s"
"""Shorter than the server's own: a request must never be sent on a connection that the server is closing."""
_MOST = 1_000_000  # no circuit breaker: the server itself bounds what it takes on


@dataclass(frozen=True, slots=True)
class Backend:
    """A service and the ports on the loopback interface that its ready pods listen on."""

    key: Key
    ports: tuple[int, ...]


def bootstrap(folder: Path, admin: Path) -> Json:
    """What Envoy is started with.

    Args:
        folder: Where the other files lie.
        admin: Path of the socket to ask Envoy about itself.
    """
    return {
        "node": {"id": "local", "cluster": "local"},
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "dynamic_resources": {
            "lds_config": _source(folder / "lds.json"),
            "cds_config": _source(folder / "cds.json"),
        },
    }


def files(backends: Iterable[Backend], *, folder: Path, port: int) -> dict[str, str]:
    """Every watched file by its name, in the order in which to write them: what is referred to comes first.

    Args:
        backends: The services.
        folder: Where the files will lie.
        port: Port of the gateway on the loopback interface.
    """
    ordered = sorted(backends, key=lambda backend: backend.key)
    resources: dict[str, list[Json]] = {endpoints_file(backend.key): [_endpoints(backend)] for backend in ordered}
    resources["cds.json"] = [_cluster(backend.key, folder) for backend in ordered]
    resources["rds.json"] = [_routes([backend.key for backend in ordered], port)]
    resources["lds.json"] = [_listener(folder, port)]
    return {name: _response(items) for name, items in resources.items()}


def endpoints_file(key: Key) -> str:
    return f"eds-{key.namespace}.{key.name}.json"


def version(text: str) -> str:
    """The version that a file declares."""
    return str(json.loads(text)["version_info"])


def version_stats(written: Mapping[str, str]) -> dict[str, str]:
    """The versions that Envoy reports, by statistic, once it has taken every file."""
    fixed = {
        "cds.json": "cluster_manager.cds.version_text",
        "lds.json": "listener_manager.lds.version_text",
        "rds.json": "http.gateway.rds.services.version_text",
    }
    stats = {}
    for name, text in written.items():
        if name in fixed:
            stats[fixed[name]] = version(text)
        else:
            cluster = json.loads(text)["resources"][0]["cluster_name"]
            stats[f"cluster.{cluster}.version_text"] = version(text)
    return stats


def _response(resources: list[Json]) -> str:
    return json.dumps({"version_info": names.digest(resources), "resources": resources}, indent=1)


def _source(path: Path) -> Json:
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}


def _endpoints(backend: Backend) -> Json:
    return {
        "@type": _TYPE + "config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": str(backend.key),
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}} for port in sorted(backend.ports)]}],
    }


def _address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(key: Key, folder: Path) -> Json:
    options = "extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "@type": _TYPE + _CLUSTER,
        "name": str(key),
        "type": "EDS",
        "eds_cluster_config": {"eds_config": _source(folder / endpoints_file(key))},
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {
            "thresholds": [
                {"max_connections": _MOST, "max_pending_requests": _MOST, "max_requests": _MOST, "max_retries": _MOST}
            ]
        },
        "typed_extension_protocol_options": {
            "envoy." + options: {
                "@type": _TYPE + options,
                "explicit_http_config": {"http_protocol_options": {}},
                "common_http_protocol_options": {"idle_timeout": _UPSTREAM_IDLE},
            }
        },
    }


def _routes(keys: list[Key], port: int) -> Json:
    hosts = [
        {
            "name": str(key),
            "domains": [f"{key.name}.{key.namespace}.localhost"],
            "routes": [{"match": {"prefix": "/"}, "route": _route(key)}],
        }
        for key in keys
    ]
    paths: list[Json] = []
    for key in keys:
        prefix = f"/{key.namespace}/{key.name}"
        rewrite = {"pattern": {"regex": f"^{re.escape(prefix)}/*"}, "substitution": "/"}
        paths.append({"match": {"path_separated_prefix": prefix}, "route": {**_route(key), "regex_rewrite": rewrite}})
    known = ", ".join(f"http://127.0.0.1:{port}/{key.namespace}/{key.name}" for key in keys) or "none yet"
    body = json.dumps({"error": f"no service at this path; services: {known}"}) + "\n"
    header = {"header": {"key": "content-type", "value": "application/json"}}
    paths.append(
        {
            "match": {"prefix": "/"},
            "direct_response": {"status": 404, "body": {"inline_string": body}},
            "response_headers_to_add": [{**header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
        }
    )
    return {
        "@type": _TYPE + "config.route.v3.RouteConfiguration",
        "name": "services",
        "ignore_port_in_host_matching": True,
        # A list of many services makes a long sentence; the default bound is 4 KiB.
        "max_direct_response_body_size_bytes": 1 << 20,
        "virtual_hosts": [*hosts, {"name": "paths", "domains": ["*"], "routes": paths}],
    }


def _route(key: Key) -> Json:
    """An inference may take long, so no timeout; and only what certainly did not reach a server is sent again."""
    predicate = "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    return {
        "cluster": str(key),
        "timeout": "0s",
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset-before-request",
            "num_retries": 3,
            "retry_host_predicate": [
                {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {"@type": _TYPE + predicate}}
            ],
            "host_selection_retry_max_attempts": 3,
        },
    }


def _listener(folder: Path, port: int) -> Json:
    manager = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = "extensions.filters.http.router.v3.Router"
    connections = {
        "@type": _TYPE + manager,
        "stat_prefix": "gateway",
        "rds": {"route_config_name": "services", "config_source": _source(folder / "rds.json")},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _TYPE + router}}],
        "server_header_transformation": "PASS_THROUGH",
        "generate_request_id": False,
        "normalize_path": True,
        "stream_idle_timeout": "0s",
    }
    return {
        "@type": _TYPE + "config.listener.v3.Listener",
        "name": "gateway",
        "address": _address(port),
        # Two processes must not share the port: the second one is to be told that it is taken.
        "enable_reuse_port": False,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": connections}]}
        ],
    }
