"""HTTP sessions with OpenID Connect providers, whose responses are limited in time and size."""

from typing import Any

import requests
from authlib.integrations.django_client import DjangoOAuth2App
from authlib.integrations.requests_client import OAuth2Session
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from users.deadline import watch

#: Maximum bytes of a response. Discovery documents and key sets have some thousands.
MAX_RESPONSE_BYTES = 1024 * 1024


class WatchedHTTPConnection(HTTPConnection):
    def _new_conn(self) -> Any:
        return watch(super()._new_conn())


class WatchedHTTPSConnection(HTTPSConnection):
    def _new_conn(self) -> Any:
        return watch(super()._new_conn())


class WatchedHTTPPool(HTTPConnectionPool):
    ConnectionCls = WatchedHTTPConnection


class WatchedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = WatchedHTTPSConnection


class BoundedAdapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": WatchedHTTPPool, "https": WatchedHTTPSPool}

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        response = super().send(request, *args, **{**kwargs, "stream": True})
        content = response.raw.read(MAX_RESPONSE_BYTES + 1, decode_content=True)
        if len(content) > MAX_RESPONSE_BYTES:
            response.close()
            raise requests.ConnectionError("The response is too large.")
        response._content, response._content_consumed = content, True  # type: ignore[attr-defined]
        return response


class BoundedSession(OAuth2Session):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for scheme in ("http://", "https://"):
            self.mount(scheme, BoundedAdapter())


class BoundedApp(DjangoOAuth2App):  # type: ignore[misc]
    client_cls = BoundedSession
