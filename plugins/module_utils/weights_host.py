# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights on their way from host to host: look, fetch, and serve a whole folder to those that know its token. This file does I/O."""

from __future__ import annotations

import hmac
import http.server
import json
import os
import re
import shutil
import sys
import threading
import time
import urllib.parse

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import job_host, weights

BLOCK = 1 << 20
START_S = 20.0


def answer(arguments):
    """Look at a model's folder, have it whole, or serve it.

    :param dict arguments: "act": "look", "fetch", "serve" or "stop", and "path"; for fetch "kind", "where", "timeout_s" and "manifest" as of the module
        weights; for serve "program" (text), "token", "seconds" and "state_directory"; for stop "state_directory".
    :raises ValueError: with one line for the user.
    """
    try:
        return {"look": look, "fetch": fetch, "serve": serve, "stop": stop}[arguments["act"]](arguments)
    except weights.WeightsError as error:
        raise ValueError(str(error))
    except OSError as error:
        raise ValueError("%s: %s" % (error.filename or arguments["path"], error.strerror or error))


def look(arguments):
    """:returns: {"problems": what is wrong with the folder}."""
    return {"problems": weights.check(arguments["path"])}


def fetch(arguments):
    """Have the folder whole. :returns: {"changed", "actions", "elapsed_s"}."""
    started = time.monotonic()
    done = weights.ensure(arguments["path"], arguments["kind"], arguments["where"], False, arguments["timeout_s"])
    noted = weights.ensure_manifest(arguments["path"], arguments["manifest"], False, False, arguments["timeout_s"])
    return {"changed": done["changed"] or noted["changed"], "actions": done["actions"] + noted["actions"], "elapsed_s": round(time.monotonic() - started, 3)}


# --- as a job -------------------------------------------------------------------------------------------------------


def params(arguments, **more):
    """Of the job that serves; one on a host at a time."""
    return dict(job_host.DEFAULTS, id="weights-server", kind="weights", state_directory=arguments["state_directory"], argv=[], files={}, **more)


def serve(arguments):
    """Start to serve the folder. :returns: {"port"}."""
    given = params(arguments, state="started", timeout_s=int(arguments["seconds"]), rerun=True)
    folder = os.path.join(arguments["state_directory"], "jobs", given["id"])
    given.update(argv=[sys.executable, os.path.join(folder, "program")],
                 files={"program": arguments["program"], "request.json": {"path": arguments["path"], "token": arguments["token"]}})
    job_host.answer(given)
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        port = job_host.read_text(os.path.join(folder, "progress"))
        if port:
            return {"port": int(port)}
        time.sleep(0.05)
    raise ValueError("%s: the job that serves it did not start; see %s/log" % (arguments["path"], folder))


def stop(arguments):
    """Serve no more."""
    return {"changed": job_host.answer(params(arguments, state="absent"))["changed"]}


def main(arguments):
    """What the program of the job runs."""
    folder = arguments.get("folder") or os.path.dirname(os.path.abspath(sys.argv[0]))
    with open(os.path.join(folder, "request.json"), encoding="utf-8") as stream:
        request = json.load(stream)
    server = listen(request["path"], request["token"])
    job_host.write_text(os.path.join(folder, "progress"), str(server.server_address[1]))
    threading.Event().wait()


def listen(path, token, address=("", 0)):
    """:returns: a server of the folder at /<token>/, on a free port."""
    names = sorted(weights.listing(path)) + [name for name in (weights.MANIFEST,) if os.path.exists(os.path.join(path, name))]
    server = http.server.ThreadingHTTPServer(address, type("Weights", (Handler,), {"folder": path, "token": token, "names": names}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Handler(http.server.BaseHTTPRequestHandler):
    """The files of one model, to those that know the token; parts of a file to those that go on."""

    protocol_version = "HTTP/1.1"
    folder, token, names = "", "", ()

    def do_GET(self):
        """Answer a GET."""
        dummy, token, name = (urllib.parse.unquote(self.path).split("/", 2) + ["", ""])[:3]
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode("utf-8")):
            return self.reply(404, 0)
        if not name:
            text = "".join('<a href="%s">\n' % urllib.parse.quote(each) for each in self.names if each != weights.MANIFEST).encode("utf-8")
            self.reply(200, len(text))
            return self.wfile.write(text) if self.command == "GET" else None
        if name not in self.names:
            return self.reply(404, 0)
        with open(os.path.join(self.folder, name), "rb") as stream:
            state = os.fstat(stream.fileno())
            tag = '"%x-%x"' % (state.st_size, state.st_mtime_ns)
            begin = re.match(r"bytes=(\d+)-$", self.headers.get("Range") or "")
            offset = int(begin.group(1)) if begin and self.headers.get("If-Range") in (None, tag) else 0
            if offset and offset >= state.st_size:
                return self.reply(416, 0)
            more = {"Content-Range": "bytes %d-%d/%d" % (offset, state.st_size - 1, state.st_size)} if offset else {}
            self.reply(206 if offset else 200, state.st_size - offset, dict(more, ETag=tag))
            if self.command == "GET":
                stream.seek(offset)
                shutil.copyfileobj(stream, self.wfile, BLOCK)
        return None

    do_HEAD = do_GET

    def reply(self, status, length, headers=None):
        """Status and headers."""
        self.send_response(status)
        for name, value in dict(headers or {}, **{"Content-Length": str(length)}).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        """Say nothing: the path has the token."""
