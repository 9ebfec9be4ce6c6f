# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the engine image of the rehearsal fleet, once per platform, when something that goes into it changed.

Runs on the controller. Prints one JSON object: {"changed": bool, "images": {tag: id}, "elapsed_s": float}.
Needs `unearth` for the two source packages, which stay in the cache.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Package, its file, sha256 of the file, folder inside it, Python package to keep whole, repository in the image.
SOURCES = (
    ("vllm==0.18.0", "vllm-0.18.0.tar.gz", "9a1bee091db8dbb4664a2a09cd9c61912e9912a44af1ce12b8593a231d05971c", "vllm", "vllm"),
    ("vllm-ascend==0.18.0", "vllm_ascend-0.18.0.tar.gz", "8df042cfaae06fab993bff5f38bb45097634c3f398b2cf74e068347abdddb344",
     "vllm_ascend", "vllm-ascend"),
)
PLATFORMS = {"a2": "ascend910b1", "a3": "ascend910_9391", "310p": "ascend310p1"}
# The simulated commands take the flags that the collection checks against: the same tables, so that both are the true parser's.
FLAGS = [HERE.parents[3] / "catalogue" / "engine_flags" / name for name in ("vllm-0.18.0.tsv", "bench-serve-0.18.0.tsv")]
INPUTS = ("Dockerfile", "install.sh", "entrypoint.sh")
LABEL = "rehearsal.inputs"


class Failed(Exception):
    """One sentence for the user."""


def sha256(path):
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def run(words, remedy, **environment):
    """Output of a command; a failure becomes one sentence with its last lines."""
    try:
        done = subprocess.run(words, env=dict(os.environ, **environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True)
    except FileNotFoundError:
        raise Failed("%s not found; %s" % (words[0], remedy)) from None
    if done.returncode:
        last = " | ".join(done.stdout.strip().split("\n")[-5:])
        raise Failed("%s failed with code %d: %s; %s" % (" ".join(words[:4]), done.returncode, last, remedy))
    return done.stdout


def index_of_pip():
    """unearth's options and environment that take it where pip goes: index, trusted hosts, certificates."""
    settings = {}
    for line in sorted(run([sys.executable, "-m", "pip", "config", "list"], "pip must run in %s" % sys.executable).splitlines(), reverse=True):
        name, equals, value = line.partition("=")
        if equals:
            settings[name.rpartition(".")[2]] = value.strip("'\"")  # reversed: the environment (":env:") comes last and wins
    options = ["--index-url", settings["index-url"]] if settings.get("index-url") else []
    for host in settings.get("trusted-host", "").split():
        options += ["--trusted-host", host]
    return options, {"SSL_CERT_FILE": settings["cert"]} if settings.get("cert") else {}


def source(cache, requirement, name, digest):
    """Path of a source package in the cache, fetched when it is not there."""
    path = cache / "sources" / name
    if path.exists() and sha256(path) == digest:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    options, environment = index_of_pip()
    run([sys.executable, "-m", "unearth", "--no-binary", "--download", str(path.parent)] + options + [requirement],
        "the Python package index must be reachable and unearth installed (requirements.txt)", **environment)
    found = sha256(path) if path.exists() else "no file"
    if found != digest:
        raise Failed("%s: expected sha256 %s, found %s; remove the file and look at the package index in use" % (path, digest, found))
    return path


def wanted(name, package):
    """Whether a file of a source package goes into the image: what patches meet, not what compilers need."""
    parts = name.split("/")[1:]
    return (len(parts) == 1 or parts[0] in (package, "requirements") or (parts[0] == "tests" and name.endswith(".py"))
            or (parts[0] == "docs" and name.endswith(".md")))


def trees(archives, target):
    """Write one tar with both trees, byte for byte as in the source packages."""
    with tarfile.open(target, "w") as out:
        for path, package, repository in archives:
            with tarfile.open(path) as archive:
                for member in sorted((one for one in archive if one.isfile() and wanted(one.name, package)), key=lambda one: one.name):
                    content = archive.extractfile(member).read()
                    entry = tarfile.TarInfo("%s/%s" % (repository, member.name.split("/", 1)[1]))
                    entry.size, entry.mode, entry.mtime = len(content), 0o755 if member.mode & 0o100 else 0o644, 1777507200
                    out.addfile(entry, io.BytesIO(content))


def inputs_hash(base_id):
    """What the image depends on, as 16 hex digits."""
    digest = hashlib.sha256(base_id.encode())
    for path in FLAGS + [HERE / name for name in INPUTS] + sorted((HERE / "vllm_sim").glob("*.*")) + [Path(__file__)]:
        digest.update(("%s %s\n" % (path.name, sha256(path))).encode())
    return digest.hexdigest()[:16]


def image_id(docker, tag, template="{{.Id}}"):
    """A field of a local image, or None when there is no such image."""
    words = [docker, "image", "inspect", "--format", template, tag]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def build(arguments):
    """Bring the three tags up to date; returns the result object."""
    start = time.monotonic()
    run([arguments.docker, "version"], "a container engine must run on this machine")
    base_id = image_id(arguments.docker, arguments.base)
    if base_id is None:
        raise Failed("base image %s: not found on this machine, wanted to build the engine image on it; build it first" % arguments.base)
    inputs = inputs_hash(base_id)
    tags = {platform: "%s:%s" % (arguments.name, platform) for platform in PLATFORMS}
    stale = [platform for platform, tag in tags.items()
             if image_id(arguments.docker, tag, '{{index .Config.Labels "%s"}}' % LABEL) != inputs]
    if stale and not arguments.check:
        cache = Path(arguments.cache).expanduser()
        archives = [(source(cache, requirement, name, digest), package, repository)
                    for requirement, name, digest, package, repository in SOURCES]
        with tempfile.TemporaryDirectory() as context:
            trees(archives, Path(context) / "trees.tar")
            for name in INPUTS:
                shutil.copy(HERE / name, context)
            shutil.copytree(HERE / "vllm_sim", Path(context) / "vllm_sim", ignore=shutil.ignore_patterns("__pycache__"))
            for path in FLAGS:
                shutil.copy(path, Path(context) / "vllm_sim")
            for platform in stale:
                run([arguments.docker, "build", "--network", "host", "--build-arg", "BASE=" + arguments.base,
                     "--build-arg", "SOC_VERSION=" + PLATFORMS[platform], "--label", "%s=%s" % (LABEL, inputs), "--tag", tags[platform], context],
                    "the Debian mirror must be reachable from this machine", DOCKER_BUILDKIT="0")
    return {"changed": bool(stale), "images": {tag: image_id(arguments.docker, tag) for tag in tags.values()},
            "elapsed_s": round(time.monotonic() - start, 1)}


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cache", default="~/.cache/vllm_ascend_fleet")
    parser.add_argument("--base", default="vllm-ascend-fleet/rehearsal-base:bookworm-slim")
    parser.add_argument("--name", default="vllm-ascend-fleet/rehearsal-engine")
    parser.add_argument("--docker", default="docker")
    parser.add_argument("--check", action="store_true", help="say what would be built")
    try:
        print(json.dumps(build(parser.parse_args())))
    except Failed as error:
        sys.exit("engine image: %s" % error)


if __name__ == "__main__":
    main()
