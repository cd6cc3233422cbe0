"""Asking the host of a virtual machine for a snapshot, by keys in Consul that the host looks for.

A request is the key `snapshot/<uuid4>` with JSON: {"vm": NAME, "snapshot": NAME}. Its flags are the time at which it
was made, in seconds, so that what somebody left behind can be told from what somebody waits for.
"""

from __future__ import annotations

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
from backy_sources_ceph import PREFIX

log = logging.getLogger(__name__)
FOLDER = "snapshot/"
STALE = 600
"""Seconds after which nobody waits for an answer to a request any more."""

_TIMEOUTS = (5, 10)
"""Seconds to wait for a connection, and for each piece of an answer."""


class _Adapter(HTTPAdapter):
    """Sends with time-outs, which python-consul leaves out."""

    def send(self, request: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # as requests calls it
        return super().send(request, *arguments, **{**options, "timeout": _TIMEOUTS})


class SnapshotRequests:
    """The requests of one virtual machine. The token goes by a header, so that no URL and no error ever shows it."""

    def __init__(self, vm: str, address: str | None, token: str | None, now: Callable[[], float]) -> None:
        self._vm = vm
        self._token = token
        self._now = now
        with self._told():
            self._client = consul.Consul()
            # the token of the environment would go into the URL
            self._client.token = None
            http = self._client.http
            if address is not None:
                http.base_uri = address.rstrip("/") if "://" in address else f"http://{address}"
            # no proxy is asked for what is next door
            http.session.trust_env = False
            for scheme in ("http://", "https://"):
                http.session.mount(scheme, _Adapter(max_retries=0))
            if token:
                http.session.headers["X-Consul-Token"] = token

    @contextmanager
    def asking(self, snapshot: str) -> Iterator[None]:
        """Ask for a snapshot for as long as the context lasts. The request goes in any case, stale ones with it.

        Raises:
            SourceError: Consul does not take the request.
        """
        key = FOLDER + str(uuid.uuid4())
        value = json.dumps({"vm": self._vm, "snapshot": snapshot})
        try:
            with self._told():
                if not self._client.kv.put(key, value, flags=int(self._now())):
                    raise SourceError("Consul did not take the request for a snapshot")
            yield
        finally:
            self._remove(key)

    def _remove(self, own: str) -> None:
        """Remove a request, and what is left of others for the same virtual machine; failures are logged."""
        try:
            with self._told():
                self._client.kv.delete(own)
                for key in self._stale():
                    log.info("removing the stale request %s", key)
                    self._client.kv.delete(key)
        except SourceError as error:
            log.warning("requests may be left in Consul, until a later backup removes them: %s", error)

    def _stale(self) -> list[str]:
        _, found = self._client.kv.get(FOLDER, recurse=True)
        before = self._now() - STALE
        return [entry["Key"] for entry in found or () if entry["Flags"] < before and self._ours(entry["Value"])]

    def _ours(self, value: bytes | None) -> bool:
        """Tell whether a request is for this virtual machine and one of backy's; what is no request is nobody's."""
        try:
            request = json.loads(value or b"")
        except ValueError:
            return False
        return (
            isinstance(request, dict)
            and request.get("vm") == self._vm
            and str(request.get("snapshot", "")).startswith(PREFIX)
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn whatever a wrong or missing answer leads to into a SourceError without the token."""
        try:
            yield
        except requests.Timeout:
            raise SourceError("Consul does not answer") from None
        except requests.RequestException:
            raise SourceError("Consul can not be reached") from None
        except (consul.ConsulException, LookupError, TypeError, ValueError) as error:
            text = " ".join(f"{type(error).__name__} {error}".split())
            raise SourceError(f"Consul: {text.replace(self._token, '...') if self._token else text}") from None
