# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model's folder on a host: checked, hashed once, and filled from a server, a folder or a hub. This file does I/O.

Everything arrives in a folder below the model's (``.incoming``), is judged there as a whole, and is then renamed into place, config.json
last. A killed download goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import posixpath
import re
import shutil
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli, weight_files

MANIFEST = "weights.sha256"
INCOMING = ".incoming"
LOCK = ".weights.lock"
PARTIAL = ".weights.sha256.partial"
OURS = (INCOMING, LOCK, PARTIAL)
SOCKET_TIMEOUT_S = 60.0
TRIES = 5
BLOCK = 1 << 20
BEAT_S = 20.0
STALE_S = 180.0
SPARE_BYTES = 1 << 30
CLIENTS = {
    "huggingface": ("hf", "pip install huggingface_hub"),
    "modelscope": ("modelscope", "pip install modelscope"),
}


class WeightsError(Exception):
    """The weights are not there and cannot be had; one line for the user."""


# --- pure -----------------------------------------------------------------------------------------------------------


def parse_manifest(text):
    """``{name: sha256}`` of a manifest in the form of sha256sum. Raises WeightsError."""
    result = {}
    for line in text.splitlines():
        match = re.match(r"^([0-9a-f]{64}) [ *](.+)$", line)
        if not match or not safe(match.group(2)):
            raise WeightsError("%s: %r is not a line of sha256sum" % (MANIFEST, line[:80]))
        result[match.group(2)] = match.group(1)
    return result


def format_manifest(hashes):
    """The inverse of :func:`parse_manifest`."""
    return "".join("%s  %s\n" % (hashes[name], name) for name in sorted(hashes))


def safe(name):
    """Whether a name stays below its folder and is none of ours."""
    parts = name.split("/")
    return bool(name) and not name.startswith("/") and ".." not in parts and "" not in parts and parts[0] not in OURS


def links(page):
    """Names of the files that a server's listing of a folder links to."""
    names = [urllib.parse.unquote(each) for each in re.findall(r"""<a\s[^>]*href=["']([^"'?#]+)["']""", page, re.IGNORECASE)]
    return sorted(set(name for name in names if safe(name) and "/" not in name and not name.startswith(".")))


def order(names):
    """The order in which files move into place: what makes a folder look like a model comes last."""
    return sorted(names, key=lambda name: (name == "config.json", name == weight_files.INDEX, name))


def shorten(problems):
    """The first problems and how many more."""
    return "; ".join(problems[:3]) + (" and %d more" % (len(problems) - 3) if len(problems) > 3 else "")


# --- one folder -----------------------------------------------------------------------------------------------------


def listing(path):
    """``{name: os.stat_result}`` of the files below a folder, without ours and without hidden folders."""
    found = {}
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            relative = os.path.relpath(os.path.join(folder, name), path)
            if relative not in OURS and not relative.startswith(".") and relative != MANIFEST:
                found[relative] = os.stat(os.path.join(folder, name))
    return found


def check(path):
    """What is wrong with a model's folder, by headers and index: a list of text, empty when it is whole. Reads no tensor."""
    if not os.path.isdir(path):
        return ["%s does not exist" % path]
    files, problems, shards = listing(path), [], {}
    for name in sorted(files):
        if name.endswith(".safetensors"):
            shards[name] = weight_files.read_shard(os.path.join(path, name))
            wrong = shards[name][2]
        else:
            with open(os.path.join(path, name), "rb") as stream:
                wrong = weight_files.masquerade(stream.read(weight_files.START)) if not name.endswith((".html", ".htm")) else None
        if wrong:
            problems.append("%s: %s" % (name, wrong))
    parsed = {}
    for name in ("config.json", weight_files.INDEX):
        if name in files:
            try:
                with open(os.path.join(path, name), "rb") as stream:
                    parsed[name] = json.loads(stream.read().decode("utf-8"))
            except ValueError as error:
                problems.append("%s: not JSON: %s" % (name, error))
    if "config.json" not in files:
        problems.append("config.json: missing")
    if weight_files.INDEX in parsed:
        problems += weight_files.judge_index(parsed[weight_files.INDEX], shards)
    elif not any(name.endswith((".safetensors", ".bin", ".pt", ".pth")) for name in files):
        problems.append("no file of weights")
    return list(dict.fromkeys(problems))


def is_sparse(files):
    """Whether a good part of the files is holes, which is not worth hashing."""
    return sum(each.st_blocks for each in files.values()) * 512 < sum(each.st_size for each in files.values()) // 2


def sha256_of(path):
    """Hex sha256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def hash_folder(path, known=None):
    """``{name: sha256}`` of every file. What was hashed before a kill is taken from the note of it, unless the file changed since."""
    note, noted, hashes = os.path.join(path, PARTIAL), {}, {}
    with contextlib.suppress(FileNotFoundError):
        with open(note) as stream:
            for line in stream:
                # The last line of a killed run may be cut.
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    noted[entry["name"]] = entry
    with open(note, "a") as stream:
        for name, state in sorted(listing(path).items()):
            entry, now = noted.get(name), {"name": name, "size": state.st_size, "mtime_ns": state.st_mtime_ns}
            if (known or {}).get(name):
                hashes[name] = known[name]
            elif entry and all(entry.get(key) == value for key, value in now.items()):
                hashes[name] = entry["sha256"]
            else:
                hashes[name] = sha256_of(os.path.join(path, name))
                stream.write(json.dumps(dict(now, sha256=hashes[name])) + "\n")
                stream.flush()
    return hashes


def read_manifest(path):
    """``{name: sha256}`` of the folder's manifest, or None."""
    try:
        with open(os.path.join(path, MANIFEST)) as stream:
            return parse_manifest(stream.read())
    except FileNotFoundError:
        return None


def write_manifest(path, hashes):
    """Write the manifest through a temporary name, and drop the note of an unfinished one."""
    temporary = os.path.join(path, "." + MANIFEST)
    with open(temporary, "w") as stream:
        stream.write(format_manifest(hashes))
    os.rename(temporary, os.path.join(path, MANIFEST))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(path, PARTIAL))


def verify(path, manifest):
    """What differs from the manifest, by hash: a list of text."""
    problems = []
    for name in sorted(manifest):
        target = os.path.join(path, name)
        if not os.path.isfile(target):
            problems.append("%s: missing, the manifest names it" % name)
        elif sha256_of(target) != manifest[name]:
            problems.append("%s: its sha256 is not that of the manifest" % name)
    return problems


# --- one writer -----------------------------------------------------------------------------------------------------


class Writer:
    """Holds the lock file of a folder, which may be shared by hosts: a context manager.

    The file is touched while its holder lives. One that was not touched for a while, measured by the file system's own clock, is taken over.
    """

    def __init__(self, path, wait_s, beat_s=BEAT_S, stale_s=STALE_S, sleep=time.sleep):
        self.path, self.wait_s, self.beat_s, self.stale_s, self.sleep = os.path.join(path, LOCK), wait_s, beat_s, stale_s, sleep
        self.me = "%s:%d:%s" % (socket.gethostname(), os.getpid(), os.urandom(6).hex())
        self.done = threading.Event()

    def __enter__(self):
        end = time.monotonic() + self.wait_s
        while True:
            try:
                handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                self._take_over_stale()
                if time.monotonic() >= end:
                    raise WeightsError("%s is written by %s since before %.0f s; wait for it, or remove %s when that is gone"
                                       % (os.path.dirname(self.path), self._holder() or "somebody", self.wait_s, self.path))
                self.sleep(min(2.0, self.wait_s / 10 + 0.01))
                continue
            with os.fdopen(handle, "w") as stream:
                stream.write(self.me)
            threading.Thread(target=self._beat, daemon=True).start()
            return self

    def __exit__(self, *dummy):
        self.done.set()
        if self._holder() == self.me:
            os.unlink(self.path)

    def _holder(self):
        try:
            with open(self.path) as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def _beat(self):
        while not self.done.wait(self.beat_s):
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.path)

    def _take_over_stale(self):
        probe = "%s.%s" % (self.path, self.me.rsplit(":", 1)[-1])
        try:
            with open(probe, "w"):
                now = os.stat(probe).st_mtime
            before = os.stat(self.path)
            if now - before.st_mtime > self.stale_s:
                # A rename moves exactly the file that was judged, or the winner's new one, which the second look tells.
                os.rename(self.path, probe)
                if os.stat(probe).st_ino != before.st_ino:
                    os.link(probe, self.path)
        except (FileNotFoundError, FileExistsError):
            return
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(probe)


# --- sources --------------------------------------------------------------------------------------------------------


class FolderSource:
    """Another folder of this host, for example a mounted share."""

    def __init__(self, where):
        self.where = where

    def files(self):
        """``({name: bytes}, {name: sha256})``."""
        problems = check(self.where)
        if problems:
            raise WeightsError("the source %s holds no whole model: %s" % (self.where, shorten(problems)))
        return {name: state.st_size for name, state in listing(self.where).items()}, read_manifest(self.where) or {}

    def fetch(self, name, target):
        """Copy one file, from where an earlier copy stopped."""
        with open(os.path.join(self.where, name), "rb") as stream, open(target, "ab") as out:
            stream.seek(out.tell())
            shutil.copyfileobj(stream, out, BLOCK)


class HttpSource:
    """A folder on an HTTP server: its files are those of its manifest, or of the server's listing."""

    def __init__(self, where, sleep=time.sleep):
        self.where, self.sleep = where.rstrip("/") + "/", sleep

    def _open(self, name, method="GET", headers=None):
        request = urllib.request.Request(urllib.parse.urljoin(self.where, urllib.parse.quote(name)), method=method, headers=headers or {})
        return urllib.request.build_opener().open(request, timeout=SOCKET_TIMEOUT_S)

    def _text(self, name):
        with self._open(name) as answer:
            return answer.read(64 << 20).decode("utf-8", "replace")

    def files(self):
        """``({name: bytes}, {name: sha256})``."""
        try:
            try:
                hashes = parse_manifest(self._text(MANIFEST))
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
                hashes = {}
            names = sorted(hashes) or [name for name in links(self._text("")) if name != MANIFEST]
            if not names:
                raise WeightsError("%s names no file; put a %s there (sha256sum * > %s), or have the server list the folder" % (
                    self.where, MANIFEST, MANIFEST))
            sizes = {}
            for name in names:
                with self._open(name, "HEAD") as answer:
                    sizes[name] = int(answer.headers.get("Content-Length") or 0)
            return sizes, hashes
        except urllib.error.HTTPError as error:
            raise WeightsError("%s answers HTTP %d for %s" % (self.where, error.code, posixpath.basename(error.url) or "its listing"))
        except OSError as error:
            raise WeightsError("%s cannot be reached: %s" % (self.where, getattr(error, "reason", None) or error))

    def fetch(self, name, target):
        """Download one file into ``target``, from where an earlier try stopped. Gives up after tries that brought nothing."""
        tag_file, failures = target + ".etag", 0
        while True:
            have = os.path.getsize(target) if os.path.exists(target) else 0
            try:
                headers = {}
                if have:
                    with open(tag_file) as stream:
                        tag = stream.read()
                    headers = {"Range": "bytes=%d-" % have, "If-Range": tag} if tag else {}
                with self._open(name, headers=headers) as answer:
                    with open(tag_file, "w") as stream:
                        stream.write(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
                    wanted = (have if answer.status == 206 else 0) + int(answer.headers.get("Content-Length") or 0)
                    with open(target, "ab" if answer.status == 206 else "wb") as out:
                        shutil.copyfileobj(answer, out, BLOCK)
                if os.path.getsize(target) >= wanted:
                    os.unlink(tag_file)
                    return
                problem = "the connection closed after %d of %d bytes" % (os.path.getsize(target), wanted)
            except urllib.error.HTTPError as error:
                if error.code == 416:
                    os.unlink(target)
                elif error.code < 500 and error.code != 429:
                    raise WeightsError("%s%s: HTTP %d" % (self.where, name, error.code))
                problem = "HTTP %d" % error.code
            except (OSError, http.client.HTTPException) as error:
                problem = str(getattr(error, "reason", None) or error)
            failures = 0 if os.path.exists(target) and os.path.getsize(target) > have else failures + 1
            if failures == TRIES:
                raise WeightsError("%s%s: %s, %d times without progress; what arrived is kept, run again to go on" % (self.where, name, problem, TRIES))
            self.sleep(min(30.0, 2.0 ** failures))


def hub_command(kind, repository, client, folder):
    """Arguments of a hub's own client, which resumes by itself."""
    if kind == "huggingface":
        return [client, "download", repository, "--local-dir", folder]
    # Both spellings that every release of the client knows.
    return [client, "download", repository, "--local_dir", folder]


def fetch_hub(kind, repository, folder, timeout_s, endpoint=None, token=None):
    """Have a hub's client fill a folder. The token goes by environment, never by argument."""
    program, remedy = CLIENTS[kind]
    client = shutil.which(program)
    if client is None:
        raise WeightsError("%s is not on this host; install it (%s), or take the weights from a server or a folder" % (program, remedy))
    env = {}
    if endpoint and kind == "huggingface":
        env["HF_ENDPOINT"] = endpoint
    elif endpoint:
        # Releases before 1.38 or so know only the second one, without a scheme.
        env.update(MODELSCOPE_ENDPOINT=endpoint, MODELSCOPE_DOMAIN=endpoint.split("://", 1)[-1])
    if token:
        env["HF_TOKEN" if kind == "huggingface" else "MODELSCOPE_API_TOKEN"] = token
    done = container_cli.run(hub_command(kind, repository, client, folder), timeout_s, env=env)
    if done["rc"] != 0:
        reason = "no end after %.0f s" % timeout_s if done["timed_out"] else container_cli.last_line(done["stderr"]) or container_cli.last_line(done["stdout"])
        raise WeightsError("%s could not download %s: %s; what arrived is kept, run again to go on" % (program, repository, reason))


# --- the whole ------------------------------------------------------------------------------------------------------


def ensure(path, kind=None, where=None, check_mode=False, wait_s=3600.0, size_bytes=0, **hub):
    """Have a whole model in ``path``. ``kind``: folder, http, huggingface, modelscope, or None to look only.

    :returns: {"changed", "actions", "problems": what was wrong before}. :raises WeightsError: with nothing half in place.
    """
    problems = check(path)
    if not problems:
        return {"changed": False, "actions": [], "problems": []}
    if kind is None:
        raise WeightsError("%s: %s; name a source to download them from" % (path, shorten(problems)))
    action = "download %s from %s" % (path, where)
    if check_mode:
        return {"changed": True, "actions": [action], "problems": problems}
    os.makedirs(path, exist_ok=True)
    with Writer(path, wait_s):
        # Another host may have filled the shared folder while we waited.
        if not check(path):
            return {"changed": False, "actions": [], "problems": problems}
        incoming = os.path.join(path, INCOMING)
        os.makedirs(incoming, exist_ok=True)
        hashes = {}
        if kind in CLIENTS:
            require_space(path, size_bytes - used(incoming))
            fetch_hub(kind, where, incoming, **hub)
        else:
            hashes = fetch_files(FolderSource(where) if kind == "folder" else HttpSource(where), path, incoming)
        settle(path, incoming, hashes, where)
    return {"changed": True, "actions": [action], "problems": problems}


def used(folder):
    """Bytes of the files of a folder."""
    return sum(state.st_size for state in listing(folder).values())


def require_space(path, wanted):
    """WeightsError when the file system cannot take so many bytes and keep a little."""
    free = shutil.disk_usage(path).free
    if wanted + SPARE_BYTES > free:
        raise WeightsError("%s has %.1f GB free, %.1f GB are wanted; make room, nothing was downloaded" % (path, free / 1e9, (wanted + SPARE_BYTES) / 1e9))


def fetch_files(source, path, incoming):
    """Bring every file of a source into the folder; returns the hashes that the source promises."""
    sizes, hashes = source.files()
    have = {name: state.st_size for name, state in listing(incoming).items()}
    bad = set(problem.split(": ", 1)[0] for problem in check(path))
    good = set(listing(path)) - bad
    require_space(path, sum(max(0, size - have.get(name, have.get(name + ".part", 0))) for name, size in sizes.items() if name not in good))
    for name in sorted(sizes):
        target = os.path.join(incoming, name)
        if have.get(name) == sizes[name]:
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if name in good and is_same(os.path.join(path, name), sizes[name], hashes.get(name)):
            os.link(os.path.join(path, name), target)
            continue
        source.fetch(name, target + ".part")
        if hashes.get(name) and sha256_of(target + ".part") != hashes[name]:
            os.unlink(target + ".part")
            raise WeightsError("%s from %s has not the sha256 that its manifest promises; it was thrown away" % (name, source.where))
        os.rename(target + ".part", target)
    return hashes


def is_same(path, size, sha256):
    """Whether a file that is here already is the one of the source: by hash when the source tells it, else by size."""
    return os.path.getsize(path) == size and (sha256 is None or sha256_of(path) == sha256)


def settle(path, incoming, hashes, where):
    """Judge what arrived as a whole, and rename it into place."""
    problems = check(incoming)
    if problems:
        for name in set(problem.split(": ", 1)[0] for problem in problems):
            # What is no weights must not be taken for finished by the next try.
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(os.path.join(incoming, name))
        raise WeightsError("what came from %s is no whole model: %s; nothing was put into %s" % (where, shorten(problems), path))
    noted = read_manifest(path)
    for name in order(listing(incoming)):
        target = os.path.join(path, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if noted and not (os.path.exists(target) and os.path.samefile(target, os.path.join(incoming, name))):
            noted.pop(name, None)
        os.rename(os.path.join(incoming, name), target)
    shutil.rmtree(incoming)
    left = check(path)
    if left:
        raise WeightsError("%s has all files of %s, and others beside them: %s; remove those" % (path, where, shorten(left)))
    if hashes or noted is not None:
        # Without the source's hashes those of what was replaced are open again.
        write_manifest(path, hashes or noted)


def ensure_manifest(path, wanted, again, check_mode, wait_s):
    """Have the manifest of a whole folder. ``wanted``: auto (not for files of holes), always, never; ``again``: hash and compare.

    :returns: {"changed", "actions", "manifest": "present" | "skipped" | "written"}. :raises WeightsError: when it differs.
    """
    files, manifest = listing(path), read_manifest(path)
    if manifest is not None:
        lost = sorted(set(manifest) - set(files))
        if lost:
            raise WeightsError("%s: missing, though its manifest names them: %s" % (path, shorten(lost)))
        problems = verify(path, manifest) if again else []
        if problems:
            raise WeightsError("%s: %s; download them again" % (path, shorten(problems)))
    if manifest is not None and set(manifest) == set(files):
        return {"changed": False, "actions": [], "manifest": "present"}
    if wanted == "never" or (wanted == "auto" and is_sparse(files)):
        return {"changed": False, "actions": [], "manifest": "skipped"}
    if not check_mode:
        with Writer(path, wait_s):
            write_manifest(path, hash_folder(path, manifest))
    return {"changed": True, "actions": ["write %s" % os.path.join(path, MANIFEST)], "manifest": "written"}
