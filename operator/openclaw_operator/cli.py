"""`openclaw-operator`: the control plane as a process."""

import asyncio
import datetime
import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from urllib.request import getproxies

import click
import kopf
import orjson
import uvloop
from kubernetes.aio import client
from kubernetes.aio import config as kubeconfig

from openclaw_operator import handlers, health
from openclaw_operator.cluster.kubernetes import KubernetesCluster
from openclaw_operator.cluster.lease import LeaseLostError, while_leading
from openclaw_operator.cluster.pods import HttpPods
from openclaw_operator.config import Config, ConfigError
from openclaw_operator.controller import Controller
from openclaw_operator.telemetry import Telemetry

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_RUN_HELP = """Run the operator until it is told to stop.

It finds the cluster like kubectl does: from $KUBECONFIG, or as a pod from its service account. Settings are
environment variables that begin with OPENCLAW_; `openclaw-operator settings` lists them.
"""
_LOG_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
log = logging.getLogger("openclaw_operator")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="openclaw")
def main() -> None:
    """Reconciles InferenceServices of a Kubernetes cluster."""


@main.command(help=_RUN_HELP)
@click.option("--verbose", "-v", is_flag=True, help="Log every reconcile.")
def run(verbose: bool) -> None:
    try:
        config = Config.from_environment()
        _log(config, verbose=verbose)
        # What is observed is much and lives long: walking it over and over took a twentieth of a burst of services.
        gc.freeze()
        gc.set_threshold(20_000, 50, 100)
        uvloop.run(_run(config))
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    except LeaseLostError as error:
        raise click.ClickException(f"{error}; restart to stand for election again") from error


@main.command()
def settings() -> None:
    """List the settings, their defaults and what they do."""
    for name, field in Config.model_fields.items():
        description = " ".join((field.description or "").split())
        click.echo(f"OPENCLAW_{name.upper()}={field.default if field.default else ''}\n    {description}")


def _log(config: Config, *, verbose: bool) -> None:
    """Logs to stderr; a library's chatter is left out."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if config.log_format == "json" else logging.Formatter(_LOG_LINE))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    for chatty in ("kopf", "aiohttp", "asyncio", "kubernetes"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": now(), "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


async def _run(config: Config) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await _connect() as api:
        telemetry = Telemetry()
        cluster = KubernetesCluster(api, namespaces=config.watch_namespaces, telemetry=telemetry)
        controller = Controller(cluster, config, clock=now, pods=HttpPods(), telemetry=telemetry)
        live = health.liveness(controller.queue.overdue, limit=config.overdue_seconds)
        async with (
            health.serving(config.health_port, {"/healthz": live, "/readyz": health.ok}),
            health.serving(config.metrics_port, {"/metrics": health.metrics(telemetry.registry)}),
        ):
            await while_leading(
                lambda: _lead(controller, cluster, config=config, stop=stop),
                api=api,
                name=config.lease_name,
                namespace=config.lease_namespace or _own_namespace(),
                identity=f"{os.environ.get('POD_NAME') or socket.gethostname()}-{os.getpid()}",
                seconds=config.lease_seconds,
                stop=stop,
            )


async def _lead(controller: Controller, cluster: KubernetesCluster, *, config: Config, stop: asyncio.Event) -> None:
    """Watches and works, as the one replica that may write."""
    log.info("holding the Lease, starting to work")
    controller.telemetry.leading.set(1)
    watching = kopf.operator(
        registry=handlers.registry(controller),
        settings=handlers.settings(),
        namespaces=config.watch_namespaces,
        clusterwide=not config.watch_namespaces,
        standalone=True,
        stop_flag=stop,
    )
    following = handlers.follow_children(cluster, controller, namespaces=config.watch_namespaces)
    tasks = {
        asyncio.create_task(watching, name="watch services"),
        asyncio.create_task(following, name="watch children"),
        asyncio.create_task(controller.run(), name="work"),
    }
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()
    finally:
        controller.telemetry.leading.set(0)
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)


async def _connect() -> client.ApiClient:
    configuration = client.Configuration()
    configuration.connection_pool_maxsize = 32
    # aiohttp would otherwise look for a netrc file with every request, in a thread: only a proxy makes it worth that.
    configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST") and not os.environ.get("KUBECONFIG"):
            kubeconfig.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await kubeconfig.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (kubeconfig.ConfigException, OSError) as error:
        raise ConfigError(f"no cluster to work on: {error}; set KUBECONFIG, or run in a pod") from error
    return client.ApiClient(configuration)


def _own_namespace() -> str:
    return _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.exists() else "default"


def now() -> str:
    """The time as Kubernetes writes it: RFC 3339, UTC, whole seconds."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
