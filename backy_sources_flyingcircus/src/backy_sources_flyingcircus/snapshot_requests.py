"""Asks the host of a virtual machine for a snapshot, by a key in Consul that the host looks for.

A request is the key `snapshot/<uuid4>` with JSON: {"vm": NAME, "snapshot": NAME}. Its flags are the time when it was
made, in seconds since 1970, so that a request that nobody waits for can be removed.
"""

import json
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import consul
import requests
from requests.adapters import HTTPAdapter

from backy.api import SourceError
from backy.errors import warned
from backy_sources_ceph import PREFIX

log = logging.getLogger(__name__)
FOLDER = "snapshot/"
STALE = 600
"""Seconds after which nobody waits for a request any more."""

_TIMEOUTS = (5, 10)
"""Seconds to wait for a connection, and for each part of an answer."""


class _Adapter(HTTPAdapter):
    """Sends requests with time-outs, because python-consul sets none."""

    def send(self, request: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # as requests calls it
        return super().send(request, *arguments, **{**options, "timeout": _TIMEOUTS})


class SnapshotRequests:
    """The requests for one virtual machine."""

    def __init__(self, vm: str, address: str | None, token: str | None, now: Callable[[], float]) -> None:
        self._vm = vm
        self._token = token
        self._now = now
        with self._reported():
            self._client = consul.Consul()
            # python-consul would put a token from the environment into the URL.
            self._client.token = None
            http = self._client.http
            if address is not None:
                http.base_uri = address.rstrip("/") if "://" in address else f"http://{address}"
            # The agent is on this machine or near it: do not ask a proxy of the environment.
            http.session.trust_env = False
            for scheme in ("http://", "https://"):
                http.session.mount(scheme, _Adapter(max_retries=0))
            # In a header no URL, log or error shows the token.
            if token:
                http.session.headers["X-Consul-Token"] = token

    @contextmanager
    def asking(self, snapshot: str) -> Iterator[None]:
        """Ask for a snapshot while the context lasts, then remove the request and stale ones.

        Raises:
            SourceError: Consul does not take the request.
        """
        key = FOLDER + str(uuid.uuid4())
        value = json.dumps({"vm": self._vm, "snapshot": snapshot})
        # Removed also if the request fails: Consul may have taken it and only its answer was lost.
        try:
            with self._reported():
                if not self._client.kv.put(key, value, flags=int(self._now())):
                    raise SourceError("Consul did not take the request for a snapshot")
            yield
        finally:
            self._remove(key)

    def _remove(self, own: str) -> None:
        """Remove a request, and stale ones for the same virtual machine. Log a failure and go on."""
        with warned(log, "requests may be left in Consul, until a later backup removes them"), self._reported():
            self._client.kv.delete(own)
            for key in self._stale():
                log.info("removing the stale request %s", key)
                self._client.kv.delete(key)

    def _stale(self) -> list[str]:
        _, found = self._client.kv.get(FOLDER, recurse=True)
        before = self._now() - STALE
        return [entry["Key"] for entry in found or () if entry["Flags"] < before and self._ours(entry["Value"])]

    def _ours(self, value: bytes | None) -> bool:
        """Tell whether a value is a request of backy for this virtual machine."""
        try:
            request = json.loads(value or b"")
        except ValueError:  # other programs may have keys in this folder
            return False
        own = isinstance(request, dict) and request.get("vm") == self._vm
        return own and str(request.get("snapshot", "")).startswith(PREFIX)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Raise the errors that a wrong or missing answer leads to as SourceError without the token."""
        try:
            yield
        except requests.Timeout:
            raise SourceError("Consul does not answer") from None
        except requests.RequestException:
            raise SourceError("Consul can not be reached") from None
        # python-consul does not check answers, so a wrong one leads to errors of any of these kinds.
        except (consul.ConsulException, LookupError, TypeError, ValueError) as error:
            text = " ".join(f"{type(error).__name__} {error}".split())
            raise SourceError(f"Consul: {text.replace(self._token, '...') if self._token else text}") from None
