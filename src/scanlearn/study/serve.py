"""Showing a page in the browser, served on this machine alone."""

from __future__ import annotations

import http.server
import secrets
import webbrowser
from functools import partial
from pathlib import Path
from typing import Any

from scanlearn.console import say


class _OnePage(http.server.BaseHTTPRequestHandler):
    """Gives one file under one unguessable address and nothing else of the folder."""

    def __init__(self, page: Path, address: str, *rest: Any):
        self.page, self.address = page, address
        super().__init__(*rest)

    def do_GET(self) -> None:
        if self.path != self.address:
            self.send_error(404)
            return
        content = self.page.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *rest: Any) -> None:
        """Nothing: who looks at a page is nobody's business."""


def server_of(page: Path) -> tuple[http.server.ThreadingHTTPServer, str]:
    """A server on a free port of 127.0.0.1 for one page, and the address of the page."""
    path = f"/{secrets.token_urlsafe(16)}/{page.name}"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_OnePage, page, path))
    return server, f"http://127.0.0.1:{server.server_address[1]}{path}"


def serve(page: Path) -> None:
    """Serve a page and open it in the browser; returns on Ctrl-C."""
    server, address = server_of(page)
    say(f"{address}  (only from this machine; Ctrl-C ends it)")
    webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
