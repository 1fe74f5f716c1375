"""Who may talk to `clipmsa app`; apart because what it is made of comes with Gradio."""

from __future__ import annotations

import socket
from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class Doorman:
    """Lets requests in that are addressed to this server and, if a page sends them, to its own.

    A page on the web can have its name resolve to this machine, and so read what is served here
    (DNS rebinding), or can post forms and files here unseen. The headers Host and Origin, which no
    page may choose, tell: a name is served only if it is `localhost`, this machine's, an address in
    numbers, which needs no resolving, or one of `names`, those that the user says it has; with a
    port where that is none of the usual.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._given = {name.lower() for name in names}
        own = {"localhost", socket.gethostname().lower()}
        self._names = own | {_name(f"//{name}") for name in self._given} - {""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_own(_name(f"//{host}")):
            told = "This server has another name; --name of `clipmsa app` adds one."
        elif origin is not None and not self._is_same(origin, host):
            told = "Pages of other sites may send nothing here."
        else:
            await self._app(scope, receive, send)
            return
        await PlainTextResponse(told, 403)(scope, receive, send)

    def _is_own(self, name: str) -> bool:
        return name in self._names or _is_number(name)

    def _is_same(self, origin: str, host: str) -> bool:
        """Whether a page is this server's: a proxy may change Host, so a given name counts, too."""
        return origin.lower().partition("://")[2] in (host.lower(), *self._given)


def _name(address: str) -> str:
    """The host of an address, in lower case; "" where there is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _is_number(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
