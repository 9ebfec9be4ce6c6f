# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The blobs of a bundle on a host: out of a registry into a folder, and from that folder into the host's own engine. This file does I/O."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import sys
import threading
import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bundle, container_cli, image_job, image_supply, job_host, registry
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.image_supply import SupplyError

FOLDER = "bundle"
BLOCK = 1 << 20


def folder_of(options):
    """Where a host keeps blobs while they travel."""
    return os.path.join(options["state_directory"], FOLDER)


def sha256_of(path):
    """Of a file."""
    value = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            value.update(block)
    return value.hexdigest()


# --- into the folder ------------------------------------------------------------------------------------------------


def collect(options, tell):
    """Have the blobs of one image in the folder, from its registry. :returns: {"blobs": {hex: bytes}}; SupplyError or RegistryError."""
    folder = folder_of(options)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    name, path = container_cli.find_engine(options["engine"], options["engine_path"])
    client, repository, digest = image_supply.client_for(
        options,
        options["reference"],
        options["timeout_s"],
        container_cli.Engine(name, path).insecure_registries(),
        image_supply.credentials_for(options, options["reference"]),
    )
    text = client.manifest_text(repository, digest)
    manifest, found = json.loads(text.decode("utf-8")), {}
    manifests = [(digest, text)]
    for each in manifest.get("manifests") or ():
        manifests.append((each["digest"], client.manifest_text(repository, each["digest"])))
    for named, body in manifests:
        hexadecimal = named.partition(":")[2]
        with open(os.path.join(folder, hexadecimal), "wb") as stream:
            stream.write(body)
        found[hexadecimal] = len(body)
        if "config" in json.loads(body.decode("utf-8")):
            found.update(bundle.blobs_of(json.loads(body.decode("utf-8"))))
    free, total, done = shutil.disk_usage(folder).free, sum(found.values()), 0
    if total > free:
        raise SupplyError("%s has %s free, %s needs %s; make room" % (folder, image_job.megabytes(free), options["reference"], image_job.megabytes(total)))
    for hexadecimal, size in sorted(found.items()):
        target = os.path.join(folder, hexadecimal)
        if not os.path.exists(target):
            client.download(repository, "sha256:" + hexadecimal, target, lambda came, before=done: tell("%s of %s from %s" % (
                image_job.megabytes(before + came), image_job.megabytes(total), client.registry)))
        done += size
    return {"blobs": found}


# --- out of it ------------------------------------------------------------------------------------------------------


def lacking(arguments):
    """What of an image has to be copied to this host: nothing when the engine has it under the bundle's name.

    :param dict arguments: "options" of module image, "blobs": names.
    :returns: the module's result with "blobs": None when the image is here, else {"blobs": [names that the folder lacks]}.
    """
    options = arguments["options"]
    name, path = container_cli.find_engine(options["engine"], options["engine_path"])
    found = image_supply.present(container_cli.Engine(name, path), options)
    if found and found["local_reference"] == options["reference"]:
        return dict(image_supply.empty(), blobs=None, elapsed_s=0.0, **found)
    folder = folder_of(options)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    need, free = sum(arguments["blobs"].values()), shutil.disk_usage(folder).free
    if need > free:
        raise SupplyError("%s has %s free, the blobs of %s need %s; make room" % (
            folder, image_job.megabytes(free), options["reference"], image_job.megabytes(need)))
    return {"blobs": sorted(each for each in arguments["blobs"] if not os.path.exists(os.path.join(folder, each)))}


def take(arguments):
    """Take a blob that was copied to this host, if it is what its name says.

    :param dict arguments: "options", "path": where it lies, "name".
    """
    if not bundle.is_blob(arguments["name"]) or sha256_of(arguments["path"]) != arguments["name"]:
        raise SupplyError("blob %s was damaged on its way to this host; run again" % arguments["name"][:12])
    target = os.path.join(folder_of(arguments["options"]), arguments["name"])
    shutil.move(arguments["path"], target + ".part")
    os.chown(target + ".part", os.getuid(), os.getgid())
    os.rename(target + ".part", target)
    return {"changed": True}


class Handler(http.server.BaseHTTPRequestHandler):
    """What an engine asks of a registry when it pulls by digest."""

    protocol_version = "HTTP/1.1"
    folder = ""

    def do_GET(self):
        """Answer a GET."""
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts == ["v2"]:
            self.reply(200, 2, "application/json")
            return self.wfile.write(b"{}") if self.command == "GET" else None
        kind, name = parts[-2] if len(parts) > 3 else "", parts[-1].partition(":")[2]
        path = os.path.join(self.folder, name)
        if kind not in ("manifests", "blobs") or not bundle.is_blob(name) or not os.path.isfile(path):
            return self.reply(404, 0, "application/json")
        media = "application/octet-stream"
        if kind == "manifests":
            with open(path, encoding="utf-8") as stream:
                manifest = json.load(stream)
            media = manifest.get("mediaType") or (registry.INDEX_TYPES if "manifests" in manifest else registry.MANIFEST_TYPES)[0]
        self.reply(200, os.path.getsize(path), media, "sha256:" + name)
        if self.command == "GET":
            with open(path, "rb") as stream:
                shutil.copyfileobj(stream, self.wfile, BLOCK)
        return None

    do_HEAD = do_GET

    def reply(self, status, length, media, digest=None):
        """Status and headers."""
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Content-Type", media)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        """Say nothing: the engine says what it misses."""


def serve(folder, address=bundle.ADDRESS):
    """Serve a folder of blobs to this host alone. :returns: the server, to be shut down; SupplyError when the port is taken."""
    try:
        server = http.server.ThreadingHTTPServer(address, type("Blobs", (Handler,), {"folder": folder}))
    except OSError as error:
        raise SupplyError("%s:%d is taken on this host (%s); what listens there keeps an image of a bundle from being loaded" % (address + (error.strerror,)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def layers(options):
    """{the twelve digits under which engines show a layer: its bytes}."""
    name = registry.parse_reference(options["reference"])["digest"]
    manifest = read_json(options, name)
    inner = registry.digest_for(manifest, options["architecture"])
    manifest = read_json(options, inner) if inner else manifest
    return dict((each["digest"].partition(":")[2][:12], each.get("size") or 0) for each in manifest.get("layers") or ())


def read_json(options, digest):
    """A blob that is JSON."""
    with open(os.path.join(folder_of(options), digest.partition(":")[2]), encoding="utf-8") as stream:
        return json.load(stream)


def load(engine, options, end, teller):
    """Have the image of the folder in the engine. Each blob was proven when it came, and the engine proves it again."""
    server = serve(folder_of(options))
    try:
        teller.begin(options["reference"], layers(options))
        engine.run(["pull"] + (["--tls-verify=false"] if engine.name == "podman" else []) + [options["reference"]], tell=teller.progress,
                   timeout_s=max(1.0, end - time.monotonic()))
    finally:
        server.shutdown()
        server.server_close()
    found = engine.image(options["reference"])
    if found is None:
        raise SupplyError("%s was loaded, but the engine does not know it by that name" % options["reference"])
    image_supply.refuse_architecture(found["architecture"], options["architecture"], options["reference"], "loaded")
    shutil.rmtree(folder_of(options))
    return dict(image_supply.empty(), changed=True, id=found["id"], digest=registry.parse_reference(options["reference"])["digest"],
                mirror=options["reference"], local_reference=options["reference"], actions=["load " + options["reference"]])


# --- as jobs --------------------------------------------------------------------------------------------------------


def main(arguments):
    """What the program of a job runs: "collect" or "load" of its request. :returns: whether it failed; the rest is result.json."""
    folder = arguments.get("folder") or os.path.dirname(os.path.abspath(sys.argv[0]))
    with open(os.path.join(folder, "request.json"), encoding="utf-8") as stream:
        options = dict(json.load(stream), registry_password=os.environ.get(image_job.PASSWORD))
    teller = image_job.Teller(lambda text: job_host.write_text(os.path.join(folder, "progress"), text + "\n"), time.monotonic)
    started = time.monotonic()
    try:
        if options["bundle"] == "collect":
            result = dict(collect(options, teller.say), changed=False)
        else:
            result = load(container_cli.Engine(*container_cli.find_engine(options["engine"], options["engine_path"])), options,
                          started + options["timeout_s"], teller)
            result["diff"] = {"before": {"image": None}, "after": {"image": options["reference"]}}
    except (SupplyError, container_cli.CommandError, registry.RegistryError) as error:
        result = {"failed": True, "changed": False, "msg": str(error)}
    result["elapsed_s"] = round(time.monotonic() - started, 3)
    job_host.write_text(os.path.join(folder, "result.json"), json.dumps(result))
    return {"failed": bool(result.get("failed")), "msg": result.get("msg", "")}


def clean(arguments):
    """Remove the folder. :param dict arguments: "options"."""
    shutil.rmtree(folder_of(arguments["options"]), ignore_errors=True)
    return {"changed": False}
