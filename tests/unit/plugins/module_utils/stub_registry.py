# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry on loopback that can be told to misbehave."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class StubRegistry:
    """``answers`` is a list of ``(status, headers)`` sent before the truth; ``lie`` replaces the announced digest."""

    def __init__(self, user=None, password=None, scheme="basic"):
        self.blobs, self.tags, self.types = {}, {}, {}
        self.seen, self.answers = [], []
        self.user, self.password, self.scheme = user, password, scheme
        self.head, self.announce, self.lie, self.truncate, self.stall = True, True, None, False, None
        self.pause_s = 0  # before each eighth of a layer
        self.uploads, self.damage = {}, None  # damage: digest of a blob that is sent with another first byte
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format, *args):
                return

            def do_HEAD(self):
                stub.answer(self)

            def do_GET(self):
                stub.answer(self)

            def do_POST(self):
                stub.take(self)

            do_PATCH = do_PUT = do_DELETE = do_POST

        class Server(ThreadingMixIn, HTTPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.host = "127.0.0.1:%d" % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def put(self, data, kind=None):
        data = data if isinstance(data, bytes) else json.dumps(data).encode("utf-8")
        self.blobs[digest_of(data)] = data
        self.types[digest_of(data)] = kind
        return digest_of(data)

    def put_image(self, tag, architecture="amd64", labels=None, layers=()):
        config = self.put({"architecture": architecture, "os": "linux", "config": {"Labels": labels or {}}})
        entries = [{"digest": self.put(layer), "size": len(layer)} for layer in layers]
        self.tags[tag] = self.put({"schemaVersion": 2, "mediaType": MANIFEST, "config": {"digest": config}, "layers": entries}, MANIFEST)
        return self.tags[tag]

    def put_index(self, tag, **images):
        """put_index("v1", amd64=digest, arm64=digest)"""
        entries = [{"digest": digest, "mediaType": MANIFEST, "platform": {"architecture": name, "os": "linux"}} for name, digest in sorted(images.items())]
        self.tags[tag] = self.put({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, INDEX)
        return self.tags[tag]

    def _allowed(self, handler):
        if self.user is None:
            return True
        basic = "Basic " + base64.b64encode(("%s:%s" % (self.user, self.password)).encode("utf-8")).decode("ascii")
        return handler.headers.get("Authorization") == (basic if self.scheme == "basic" else "Bearer a-token")

    def answer(self, handler):
        self.seen.append((handler.command, handler.path, handler.headers.get("Authorization")))
        if self.stall is not None:
            self.stall.wait(20)
        if handler.path.startswith("/token"):
            expected = "Basic " + base64.b64encode(("%s:%s" % (self.user, self.password)).encode("utf-8")).decode("ascii")
            good = handler.headers.get("Authorization") == expected
            return self.send(handler, 200 if good else 401, {}, json.dumps({"token": "a-token"}).encode("utf-8"))
        if self.answers:
            status, headers = self.answers.pop(0)
            return self.send(handler, status, headers, b"")
        if not self._allowed(handler):
            challenge = 'Basic realm="stub"'
            if self.scheme == "bearer":
                challenge = 'Bearer realm="http://%s/token",service="stub",scope="repository:x:pull"' % self.host
            return self.send(handler, 401, {"WWW-Authenticate": challenge}, b"")
        dummy, kind, selector = handler.path.rsplit("/", 2)
        digest = self.tags.get(selector, selector)
        if digest not in self.blobs:
            return self.send(handler, 404, {}, b"{}")
        headers = {"Content-Type": self.types.get(digest) or "application/octet-stream"}
        if kind == "manifests" and self.announce:
            headers["Docker-Content-Digest"] = self.lie or digest
        if handler.command == "HEAD" and not self.head:
            return self.send(handler, 405, {}, b"")
        body, start = self.blobs[digest], handler.headers.get("Range")
        if digest == self.damage:
            body = b"?" + body[1:]
        if start and kind == "blobs":
            first, dummy, last = start.partition("=")[2].partition("-")
            return self.send(handler, 206, headers, body[int(first):int(last) + 1 if last else None])
        return self.send(handler, 200, headers, body)

    def take(self, handler):
        """An upload, or a manifest, of a client that writes."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.seen.append((handler.command, handler.path, handler.headers.get("Authorization")))
        if not self._allowed(handler):
            return self.send(handler, 401, {"WWW-Authenticate": 'Basic realm="stub"'}, b"")
        path, dummy, query = handler.path.partition("?")
        if "/manifests/" in path:
            self.tags[path.rsplit("/", 1)[1]] = self.put(body, handler.headers.get("Content-Type"))
            return self.send(handler, 201, {}, b"")
        if handler.command == "POST":
            self.uploads["%s%d" % (path, len(self.uploads))] = b""
            return self.send(handler, 202, {"Location": "http://registry.made.up%s?state=1" % list(self.uploads)[-1]}, b"")
        if path not in self.uploads:
            return self.send(handler, 404, {}, b"{}")
        if handler.command == "DELETE":
            del self.uploads[path]
            return self.send(handler, 204, {}, b"")
        if handler.command == "PATCH":
            start = len(self.uploads[path])
            if handler.headers.get("Content-Range") != "%d-%d" % (start, start + len(body) - 1):
                return self.send(handler, 416, {}, b"")
            self.uploads[path] += body
            return self.send(handler, 202, {"Location": path + "?state=2"}, b"")
        data = self.uploads.pop(path)
        if "digest=" + digest_of(data).replace(":", "%3A") not in query:
            return self.send(handler, 400, {}, b"DIGEST_INVALID")
        self.put(data)
        return self.send(handler, 201, {}, b"")

    def send(self, handler, status, headers, body):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        kind = headers.get("Content-Type")
        if handler.command != "HEAD":
            if self.truncate and len(body) > 20:
                handler.wfile.write(body[:len(body) // 2])
                handler.close_connection = True
                return
            step = max(1, len(body) // 8) if self.pause_s and kind == "application/octet-stream" else len(body) or 1
            for start in range(0, len(body), step):
                time.sleep(self.pause_s if step < len(body) else 0)
                handler.wfile.write(body[start:start + step])
