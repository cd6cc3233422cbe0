"""A server that speaks Consul's KV API over a real socket, and an agent that plays the host of a virtual machine."""

from __future__ import annotations

import base64
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from backy.repository.config import JobConfig, SourceSection
from backy.repository.repository import Repository
from backy.repository.sealed import FORMAT
from tests.cluster import Cluster

NUMBERS = itertools.count()


class Consul:
    """The store of a Consul server; `behave` may answer a request in its place, by a status and a text."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[bytes, int]] = {}
        self.requests: list[str] = []
        self.token: str | None = None
        self.behave: Callable[[str, str], tuple[int, str] | None] = lambda _method, _path: None
        self.index = 1
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # a client that did not wait for its answer
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,)).start()

    def stop(self) -> None:
        """Go down: connections are refused from now on."""
        self.server.shutdown()
        self.server.server_close()

    def answer(self, method: str, url: str, given: str | None, body: bytes) -> tuple[int, str]:
        path, query = unquote(urlsplit(url).path), parse_qs(urlsplit(url).query, keep_blank_values=True)
        self.requests.append(f"{method} {url}")
        if found := self.behave(method, path):
            return found
        if self.token not in {None, given}:
            return 403, "rpc error making call: Permission denied"
        key = path.removeprefix("/v1/kv/")
        self.index += 1
        if method == "PUT":
            self.keys[key] = body, int(query.get("flags", ["0"])[0])
            return 200, "true"
        if method == "DELETE":
            self.keys.pop(key, None)
            return 200, "true"
        names = [name for name in sorted(self.keys) if name == key or ("recurse" in query and name.startswith(key))]
        entries = [self.entry(name) for name in names]
        return (200, json.dumps(entries)) if entries else (404, "")

    def entry(self, name: str) -> dict[str, Any]:
        value, flags = self.keys[name]
        encoded = base64.b64encode(value).decode() if value else None
        numbers = {"LockIndex": 0, "CreateIndex": self.index, "ModifyIndex": self.index}
        return {**numbers, "Key": name, "Flags": flags, "Value": encoded}


def handler(consul: Consul) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("do_"):
                return self.handle_one_of_any_method
            raise AttributeError(name)

        def handle_one_of_any_method(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, text = consul.answer(self.command, self.path, self.headers.get("X-Consul-Token"), body)
            if not status:
                return  # hang up
            self.send_response(status)
            self.send_header("X-Consul-Index", str(consul.index))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def consul() -> Iterator[Consul]:
    made = Consul()
    yield made
    made.stop()


class Disk:
    """An image in a real cluster, 4 MiB large."""

    def __init__(self, cluster: Cluster, pool: str, ioctx: Any, name: str) -> None:
        self.config = {"pool": pool, "image": name, "conf": str(cluster.configuration)}
        self._ioctx = ioctx
        self._name = name

    @contextmanager
    def opened(self) -> Iterator[Any]:
        import rbd

        with rbd.Image(self._ioctx, self._name) as image:
            yield image

    def snapshots(self) -> list[str]:
        with self.opened() as image:
            return [snapshot["name"] for snapshot in image.list_snaps()]


@pytest.fixture
def disks(ceph: Cluster, ceph_pool: str) -> Iterator[Callable[..., Disk]]:
    """Make images as `disks(name)`, in a pool of the test's own."""
    import rbd

    with ceph.connected() as connection, connection.open_ioctx(ceph_pool) as ioctx:

        def make(name: str) -> Disk:
            rbd.RBD().create(ioctx, name, 4 * 2**20, old_format=False)
            return Disk(ceph, ceph_pool, ioctx, name)

        yield make


class PassingClock:
    """In place of `time`: a clock on which time passes by sleeping only; whoever is in `watchers` looks around then."""

    def __init__(self) -> None:
        self.now = time.time()
        self.watchers: list[Callable[[float], None]] = []
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        for watcher in self.watchers:
            watcher(self.now)


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> PassingClock:
    """The clock of every source of the test."""
    clock = PassingClock()
    monkeypatch.setattr("backy_sources_flyingcircus.source.time", clock)
    return clock


class Host:
    """What runs beside a virtual machine: finds requests, freezes, makes the snapshot and thaws after a while."""

    def __init__(self, consul: Consul, vm: str, disk: Disk, delay: float) -> None:
        self.answered: list[str] = []
        self._consul = consul
        self._vm = vm
        self._disk = disk
        self._delay = delay
        self._seen: dict[str, float] = {}

    def __call__(self, now: float) -> None:
        for key, (value, _) in list(self._consul.keys.items()):
            try:
                request = json.loads(value)
            except ValueError:
                continue
            if key.startswith("snapshot/") and isinstance(request, dict) and request.get("vm") == self._vm:
                self._seen.setdefault(request["snapshot"], now)
        for name, since in list(self._seen.items()):
            if now - since >= self._delay and name not in self.answered:
                self.answered.append(name)
                if name not in self._disk.snapshots():
                    with self._disk.opened() as image:
                        image.write(b"frozen".ljust(512), 0)
                        image.create_snap(name)


@pytest.fixture
def machine(consul: Consul, disks: Callable, tmp_path, passing: PassingClock) -> Callable[..., tuple]:
    """Make a virtual machine `machine(vm, delay=..., **keys)`: its disk, its repository and its host, if it has one."""

    def make(vm: str = "web1", delay: float | None = 0, image: str = "", **keys: Any) -> tuple[Any, ...]:
        disk = disks(image or f"disk{next(NUMBERS)}")
        with disk.opened() as opened:
            opened.write(b"running".ljust(512), 0)
        source = {**disk.config, "type": "flyingcircus", "vm": vm, "consul": consul.address, **keys}
        repository = Repository.initialize(
            tmp_path / f"fc{next(NUMBERS)}", JobConfig(format=FORMAT, source=SourceSection(source))
        )
        host = None if delay is None else Host(consul, vm, disk, delay)
        if host:
            passing.watchers.append(host)
        return disk, repository, host

    return make
