"""``proact lab model``: one model's server on a port, for wrk, a browser or any other client."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from proact.cli.error import CommandError
from proact.cli.stopping import StoppedError, stoppable
from proact.lab.asked import chosen
from proact.lab.registry import MODELS, Model
from proact.lab.server_process import ServerError, ServerProcess
from proact.lab.workloads import WORKLOADS


def model(
    name: Annotated[str, typer.Argument(metavar="MODEL", help=f"One of: {', '.join(MODELS)}.")],
    workload: Annotated[str, typer.Option(metavar="NAME", help=f"One of: {', '.join(WORKLOADS)}.")] = "web",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> int:
    """\b
    Examples:
      proact lab model epoll
      proact lab model proact-io_uring --port 8001
      proact lab model threads --workload echo --port 0

    The server of one I/O model, by itself, until Ctrl-C: the one that `proact lab run` measures. Its address
    is printed, and how to load it from outside. Nobody else can reach it unless --host says so.
    """
    (what, *others), (kind, *more) = chosen("model", name, MODELS), chosen("workload", workload, WORKLOADS)
    if others or more:
        raise CommandError("one model serves one workload at a time")
    os.environ.pop("PROACT_ENGINE", None)  # each model names its own engine
    if reason := MODELS[what].missing(1, kind):
        raise CommandError(f"{what}: {reason}")
    try:
        with stoppable(), ServerProcess(what, kind, address=(host, port)) as server:
            shown = f"{f'[{host}]' if ':' in host else host}:{server.port}"
            for line in instructions(MODELS[what], kind, shown):
                print(f"proact: {line}", file=sys.stderr, flush=True)
            raise CommandError(server.wait(), exit_code=1)
    except StoppedError:
        print("proact: stopped", file=sys.stderr)
        return 0
    except OSError as error:
        raise CommandError(
            f"can't listen on {host} port {port}: {error.strerror or error}", exit_code=1
        ) from None
    except ServerError as error:
        raise CommandError(f"{what}: {error}", exit_code=1) from None


def instructions(model: Model, workload: str, address: str) -> list[str]:
    """The server's address, and how to try it."""
    host, _, port = address.rpartition(":")
    if workload in ("echo", "churn", "slow-readers"):
        return [f"{model.name} echoes on {address} (Ctrl-C stops)"]
    if workload == "tls":
        return [
            f"{model.name} echoes over TLS on {address} (Ctrl-C stops)",
            f"openssl s_client -quiet -connect {address}",
        ]
    if workload not in ("web", "mixed"):
        return [
            f"{model.name}, {workload}, on {address}: a line with a number gets as many bytes (Ctrl-C stops)",
            f"echo 100 | nc {host.strip('[]')} {port}",
        ]
    url, connections = f"http://{address}", min(10, model.connection_limit or 10)
    targets = [f"{url}/bytes/1024", *([f"{url}/disk"] if workload == "mixed" else [])]
    return [
        f"{model.name}: {url}/ (Ctrl-C stops)",
        *(f"wrk --threads 1 --connections {connections} --duration 10 --latency {each}" for each in targets),
    ]
