"""Real servers for real clients: Redis, PostgreSQL, MariaDB, mosquitto, nginx. Started here, ended here.

Each is a child of this process, on loopback, on a free port, with its files in a temporary directory. No
service of the system is touched. Each dies with the tests, however they end: the kernel is asked for that
(PR_SET_PDEATHSIG, through setpriv).
"""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LOOPBACK = "127.0.0.1"
PATIENCE = 30  # seconds until a server that does not answer has failed


class Database(NamedTuple):
    port: int
    directory: Path  # its Unix socket is here
    user: str = "postgres"


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as sock:
        return sock.getsockname()[1]


def find(name: str) -> str:
    """The path of a server's program; Debian keeps PostgreSQL's outside of PATH."""
    here = [*sorted(glob.glob("/usr/lib/postgresql/*/bin")), "/usr/sbin", os.environ.get("PATH", "")]
    found = shutil.which(name, path=os.pathsep.join(here))
    assert found, f"{name} is not installed; `make ecosystem` installs it"
    return found


@contextlib.contextmanager
def daemon(
    command: list[str], port: int, end: signal.Signals = signal.SIGTERM, user: str | None = None
) -> Iterator[None]:
    """Run a server for the length of the block, which begins once the server accepts connections."""
    other = ["--reuid", user, "--regid", user, "--init-groups"] if user else []
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(
            ["setpriv", *other, "--pdeathsig", end.name, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 1):
                    break
                if child.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{command[0]} does not serve:\n{log.read()[-4000:]}")
                time.sleep(0.02)
            yield
        finally:
            child.send_signal(end)
            try:
                child.wait(PATIENCE)
            finally:
                child.kill()
                child.wait()


@contextlib.contextmanager
def directory(user: str | None = None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="proact-") as name:
        path = Path(name)
        if user:
            shutil.chown(path, user, user)
        yield path


@contextlib.contextmanager
def redis() -> Iterator[int]:
    """Run a Redis that stores nothing; yields its port."""
    port = free_port()
    with directory() as path:
        options = {"port": port, "bind": LOOPBACK, "dir": path, "save": "", "appendonly": "no"}
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        with daemon([find("redis-server"), *arguments], port):
            yield port


@contextlib.contextmanager
def postgres(certificate: Path | None = None, key: Path | None = None) -> Iterator[Database]:
    """A PostgreSQL with an empty database `postgres` and trust for everyone; TLS with a certificate."""
    # It refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    name = user or pwd.getpwuid(os.geteuid()).pw_name
    port = free_port()
    with directory(user) as path:
        data = path / "data"
        other = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"] if user else []
        subprocess.run(
            [*other, find("initdb"), "-D", data, "-A", "trust", "-U", name, "-E", "UTF8", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=path,
        )
        settings = {
            "port": port,
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": path,
            "fsync": "off",
            "max_connections": 30,
        }
        if certificate and key:
            for source, target in ((certificate, "server.crt"), (key, "server.key")):
                shutil.copy(source, data / target)
                (data / target).chmod(0o600)
                if user:
                    shutil.chown(data / target, user, user)
            settings["ssl"] = "on"
        arguments = [text for item in settings.items() for text in ("-c", f"{item[0]}={item[1]}")]
        # SIGINT means "fast shutdown": PostgreSQL does not wait for its clients.
        with daemon([find("postgres"), "-D", str(data), *arguments], port, signal.SIGINT, user):
            yield Database(port, path, name)


@contextlib.contextmanager
def mariadb() -> Iterator[Database]:
    """A MariaDB with an empty database `test`, and one user without a password."""
    user = "mysql" if os.geteuid() == 0 else None
    port = free_port()
    with directory(user) as path:
        data = path / "data"
        as_user = [f"--user={user}"] if user else []
        subprocess.run(
            [find("mariadb-install-db"), "--no-defaults", *as_user, f"--datadir={data}", "--skip-test-db"],
            check=True,
            capture_output=True,
            cwd=path,
        )
        begin = path / "begin.sql"
        begin.write_text("CREATE DATABASE test;\nCREATE USER tester@'%';\nGRANT ALL ON *.* TO tester@'%';\n")
        begin.chmod(0o644)
        options = {
            "datadir": data,
            "socket": path / "socket",
            "pid-file": path / "pid",
            "port": port,
            "bind-address": LOOPBACK,
            "init-file": begin,
            "innodb-flush-log-at-trx-commit": 0,
            "max-allowed-packet": "16M",
            "skip-name-resolve": "ON",
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        with daemon([find("mariadbd"), "--no-defaults", *as_user, *arguments], port):
            yield Database(port, path, "tester")


@contextlib.contextmanager
def mosquitto() -> Iterator[int]:
    """A broker of MQTT that keeps nothing; yields its port."""
    port = free_port()
    with directory() as path:
        configuration = path / "mosquitto.conf"
        configuration.write_text(f"listener {port} {LOOPBACK}\nallow_anonymous true\npersistence false\n")
        with daemon([find("mosquitto"), "-c", str(configuration)], port):
            yield port


NGINX = """
{user}
daemon off;
worker_processes 1;
pid {path}/pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_max_body_size 64m;
    client_body_temp_path {path}/body;
    proxy_temp_path {path}/proxy;
    fastcgi_temp_path {path}/fastcgi;
    uwsgi_temp_path {path}/uwsgi;
    scgi_temp_path {path}/scgi;
    upstream app {{ server {upstream}; keepalive 8; }}
    server {{
        listen {loopback}:{port};
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $http_connection;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(upstream: str) -> Iterator[int]:
    """Run an nginx in front of `upstream` (host:port, or unix:/path); yields its port."""
    port = free_port()
    user = "www-data" if os.geteuid() == 0 else None
    with directory(user) as path:
        configuration = path / "nginx.conf"
        values = {"path": path, "port": port, "upstream": upstream, "loopback": LOOPBACK}
        configuration.write_text(NGINX.format(user=f"user {user};" if user else "", **values))
        with daemon([find("nginx"), "-e", "stderr", "-p", str(path), "-c", str(configuration)], port):
            yield port
