"""Access to the dashboard: a token, checked before any other code handles a request.

On loopback, no token is needed by default. Even there, a page of another site must not act in the
user's name: requests from other sites are refused, web sockets included.
"""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "romul_token"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
"""Names of this machine for which a browser needs no TLS."""
_UNFRAMED = (
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
)
"""Headers that forbid other pages to show this one in a frame, which protects from clickjacking."""


class AccessControl:
    """An ASGI application in front of another one.

    Args:
        app: the guarded application.
        hosts: host names, without ports, by which browsers may reach this server; requests for
            other names (DNS rebinding) are refused. None admits any name.
        token: must be sent once, as ?token=...; None if no token is needed.
        secure: whether the cookie is for TLS only.
        behind_proxy: whether a proxy provides TLS; the cookie is for TLS only if TLS was used.
    """

    def __init__(
        self,
        app: App,
        hosts: frozenset[str] | None,
        token: str | None,
        *,
        secure: bool,
        behind_proxy: bool = False,
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._token = token
        self._secure = secure
        self._behind_proxy = behind_proxy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {
            key.decode("latin-1").lower(): v.decode("latin-1") for key, v in scope["headers"]
        }
        if why := self._foreign(headers):
            await _refuse(scope, receive, send, 403, why)
            return
        if self._token is None or any(map(self._matches, _cookies(headers))):
            await self._app(scope, receive, _unframed(send))
            return
        shown = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if scope["type"] == "http" and scope["method"] == "GET" and self._matches(shown):
            await self._let_in(scope, headers, send)
            return
        await _refuse(scope, receive, send, 401, "a token is needed: open the URL with ?token=...")

    def _foreign(self, headers: MutableMapping[str, str]) -> str:
        """Why a request counts as one from another site; "" if it does not."""
        host = headers.get("host", "")
        if self._hosts is not None and _name(f"//{host}") not in self._hosts:
            return f"unknown host {host!r}"
        origin = headers.get("origin")
        if origin is not None and (not _name(origin) or urlsplit(origin).netloc != host):
            return "requests from another site's page are refused"
        # Another page may link to this one, but not show it in a frame.
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and (
            headers.get("sec-fetch-mode") != "navigate"
            or headers.get("sec-fetch-dest", "document") != "document"
        ):
            return "another site's page must not embed this one"
        return ""

    def _matches(self, shown: str) -> bool:
        return self._token is not None and hmac.compare_digest(
            shown.encode("utf-8", "replace"), self._token.encode()
        )

    def _is_secure(self, headers: MutableMapping[str, str]) -> bool:
        """Whether the browser uses TLS: as the proxy says, or else for any host but loopback."""
        if self._secure or not self._behind_proxy:
            return self._secure
        if forwarded := headers.get("x-forwarded-proto"):
            return forwarded.partition(",")[0].strip().lower() == "https"
        return _name(f"//{headers.get('host', '')}") not in LOOPBACK

    async def _let_in(self, scope: Scope, headers: MutableMapping[str, str], send: Send) -> None:
        """Store the token in a cookie, and redirect to the address without it."""
        cookie = f"{COOKIE}={quote(self._token or '', safe='')}; Path=/; HttpOnly; SameSite=Strict"
        cookie += "; Secure" if self._is_secure(headers) else ""
        # Only a path of this server: "//elsewhere" would lead to another server.
        path = quote("/" + scope["path"].lstrip("/\\"))
        await send(
            {
                "type": "http.response.start",
                "status": 303,
                "headers": [
                    (b"location", path.encode()),
                    (b"set-cookie", cookie.encode()),
                    (b"referrer-policy", b"no-referrer"),
                ],
            }
        )
        await send({"type": "http.response.body", "body": b""})


def _unframed(send: Send) -> Send:
    """Send a response with headers that keep it out of frames."""

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_UNFRAMED]}
        await send(message)

    return sending


def _name(address: str) -> str:
    """The host name in an address such as //[::1]:80, without its port; "" if there is none."""
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return ""
    return parts.hostname or ""


def _cookies(headers: MutableMapping[str, str]) -> list[str]:
    """Tokens in a request's cookies; cookies of other programs on that host may have any form."""
    pairs = (part.partition("=") for part in headers.get("cookie", "").split(";"))
    return [unquote(value.strip()) for name, _, value in pairs if name.strip() == COOKIE]


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, why: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": why[:100]})
        return
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"text/plain; charset=utf-8")],
        }
    )
    await send({"type": "http.response.body", "body": f"{why}\n".encode()})
