"""A plain client of a server, for tests of the server itself."""

from __future__ import annotations

from typing import Any

import requests


class HttpClient(requests.Session):
    """A session of `requests` with a base URL and a time limit; it follows no redirects and uses no proxy."""

    def __init__(self, base_url: str, timeout: float = 60, keep_alive: bool = True) -> None:
        """`timeout`: seconds. `keep_alive`: False opens a connection for each request."""
        super().__init__()
        self.base_url, self.timeout, self.trust_env = base_url.rstrip("/"), timeout, False
        if not keep_alive:
            self.headers["Connection"] = "close"

    def request(self, method: str, path: str, **options: Any) -> requests.Response:  # type: ignore[override]
        """Send a request; `path` is below the base URL."""
        options = {"timeout": self.timeout, "allow_redirects": False, **options}
        return super().request(method, self.base_url + path, **options)

    def post(self, path: str, **options: Any) -> requests.Response:  # type: ignore[override]
        """Send a POST request."""
        return self.request("POST", path, **options)
