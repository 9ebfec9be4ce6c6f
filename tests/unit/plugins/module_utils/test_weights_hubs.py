# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real clients of both hubs, where they are installed, against a hub on loopback."""

from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import struct
import threading
import urllib.parse

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import weights

TENSORS = json.dumps({"a": {"dtype": "U8", "shape": [300000], "data_offsets": [0, 300000]}}).encode()
FILES = {"model.safetensors": struct.pack("<Q", len(TENSORS)) + TENSORS + b"\1" * 300000, "config.json": b"{}", "tokenizer.json": b'{"a": 1}'}
COMMIT = "a" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of both hubs as their clients ask for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        self.server.seen.append((self.path, self.headers.get("Authorization")))

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        if url.path == "/api/v1/models/o/m/repo/files":
            files = [{"Name": name, "Path": name, "Type": "blob", "Size": len(data), "Revision": COMMIT, "Sha256": hashlib.sha256(data).hexdigest()}
                     for name, data in FILES.items()]
            self.reply(json.dumps({"Code": 200, "Success": True, "Data": {"Files": files}}).encode())
        elif url.path == "/api/v1/models/o/m/repo":
            self.reply(FILES[query["FilePath"][0]])
        elif url.path.startswith("/api/models/o/m/tree/"):
            self.reply(json.dumps([{"type": "file", "oid": hashlib.sha1(data).hexdigest(), "size": len(data), "path": name}
                                   for name, data in FILES.items()]).encode())
        elif url.path.startswith("/api/models/o/m"):
            self.reply(json.dumps({"id": "o/m", "modelId": "o/m", "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0,
                                   "siblings": [{"rfilename": name} for name in FILES]}).encode())
        elif url.path.startswith("/o/m/resolve/"):
            data = FILES[url.path.rsplit("/", 1)[-1]]
            self.reply(data, {"ETag": '"%s"' % hashlib.sha1(data).hexdigest(), "X-Repo-Commit": COMMIT})
        else:
            self.send_error(404)

    def reply(self, data, headers=None):
        self.send_response(200)
        for name, value in dict(headers or {}, **{"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.seen, server.url = [], "http://127.0.0.1:%d" % server.server_port
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", sorted(weights.CLIENTS))
def test_the_real_client(kind, hub, tmp_path):
    if shutil.which(weights.CLIENTS[kind][0]) is None:
        pytest.skip("%s is not installed" % weights.CLIENTS[kind][0])
    folder = tmp_path / "m"
    assert weights.ensure(str(folder), kind, "o/m", timeout_s=120, endpoint=hub.url, token="s3cret")["changed"]
    assert {name: (folder / name).read_bytes() for name in weights.listing(str(folder))} == FILES
    assert any(path.startswith("/") and token == "Bearer s3cret" for path, token in hub.seen)
    assert weights.ensure(str(folder), kind, "o/m")["changed"] is False
