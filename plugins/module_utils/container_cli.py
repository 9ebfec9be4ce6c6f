# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands with a deadline, and docker or podman through their command line. This file does I/O."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time

ENGINES = ("docker", "podman")
QUICK_S = 60.0
OUTPUT_KEPT = 1 << 16
TELL_S = 1.0
# A daemon that restarts is back within this time; what could not reach it has done nothing, so that it may be said again.
RESTART_S = 30.0
AGAIN_S = 1.0
# First 15 characters of a command, as /proc shows them: who pauses containers for good reason.
# Source: MindCluster 7.3, "Container Manager", which stops the containers of a faulty chip until it has reset the chip.
PAUSERS = {"container-manag": "the container manager of MindCluster"}


_PROGRESS = re.compile(r"([0-9a-f]{12}): ([A-Z][a-z]+(?: [a-z]+)*)(?:[^/\n\r\x1b]*?([\d.]+)([kMG]?B)/)?")
_MOVES = ("Verifying", "Download complete", "Extracting", "Pull complete", "Already exists")
_UNITS = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}


class CommandError(Exception):
    """A command that failed, timed out or could not start; ``result`` is what :func:`run` returned."""

    def __init__(self, message, result):
        super().__init__(message)
        self.result = result


def run(args, timeout_s, stdin=None, env=None, cwd=None):
    """Run a list of arguments in the C locale and wait at most ``timeout_s`` seconds.

    The command gets its own process group, which is killed whole at the deadline.
    Returns ``{cmd, rc, stdout, stderr, timed_out, elapsed_s}`` (text); ``rc`` is 127 when it cannot start, None when killed.
    """
    started = time.monotonic()
    full_env = dict(os.environ, LC_ALL="C", LANGUAGE="", **(env or {}))
    result = {"cmd": list(args), "rc": None, "stdout": "", "stderr": "", "timed_out": False}
    # run_command of a module has no deadline.
    try:
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            args, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=full_env, cwd=cwd, start_new_session=True)
    except OSError as error:
        result.update(rc=127, stderr=str(error), elapsed_s=0.0)
        return result
    if isinstance(stdin, str):
        stdin = stdin.encode("utf-8")
    try:
        out, err = process.communicate(stdin, timeout=timeout_s)
        result["rc"] = process.returncode
    except subprocess.TimeoutExpired:
        result["timed_out"] = True
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            process.kill()
        out, err = process.communicate()
    result["stdout"] = out.decode("utf-8", "replace")
    result["stderr"] = err.decode("utf-8", "replace")
    result["elapsed_s"] = round(time.monotonic() - started, 3)
    return result


def received_bytes(text, layers, whole=None):
    """Take docker's progress lines into ``layers`` ({layer: bytes}); False when the text shows anything but bytes of layers that trickle in.

    ``whole`` is a set that gets the layers that are here.
    """
    only_bytes = True
    for layer, what, number, unit in _PROGRESS.findall(text):
        if what == "Downloading" and number:
            layers[layer] = max(layers.get(layer, 0.0), float(number) * _UNITS[unit])
        elif what.startswith(_MOVES):
            only_bytes = False
            if whole is not None:
                whole.add(layer)
    return only_bytes


def run_watched(args, timeout_s, silence_s, env=None, least_bytes_per_s=0.0, tell=None):
    """Like :func:`run` for a command that shows its progress, killed when it makes none for ``silence_s`` seconds.

    Progress is only shown to a terminal, so it gets one. docker reports each 512 KiB: a crawling transfer is silent too. With
    ``least_bytes_per_s``, so long with nothing but layers that come in slower than that is no progress either. ``tell`` is called with the bytes
    of each layer and the layers that are whole, once a second at most.
    Returns the same as :func:`run`, and ``silent``; stdout and stderr come as one text in ``stderr``.
    """
    started = time.monotonic()
    result = {"cmd": list(args), "rc": None, "stdout": "", "stderr": "", "timed_out": False, "silent": False}
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            args, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, env=dict(os.environ, LC_ALL="C", LANGUAGE="", **(env or {})),
            start_new_session=True)
    except OSError as error:
        os.close(master)
        result.update(rc=127, stderr=str(error), elapsed_s=0.0)
        return result
    finally:
        os.close(slave)
    text, heard, tail, layers, whole_layers, mark, told = b"", started, "", {}, set(), 0.0, started - TELL_S
    while True:
        now = time.monotonic()
        wait = min(started + timeout_s, heard + silence_s) - now
        if wait <= 0:
            result.update(timed_out=True, silent=now < started + timeout_s)
            os.killpg(process.pid, signal.SIGKILL)
            break
        if select.select([master], [], [], wait)[0]:
            try:
                block = os.read(master, 1 << 16)
            except OSError:  # Linux says so when the last writer has closed the terminal.
                break
            if not block:
                break
            text, now = (text + block)[-OUTPUT_KEPT:], time.monotonic()
            # A line may be cut by the end of the block.
            whole, dummy, tail = (tail + block.decode("utf-8", "replace")).rpartition("\r")
            trickles, total = received_bytes(whole, layers, whole_layers), sum(layers.values())
            if tell and now - told >= TELL_S and (layers or whole_layers):
                tell(layers, whole_layers)
                told = now
            if not (least_bytes_per_s and layers and trickles) or total - mark >= least_bytes_per_s * silence_s:
                heard, mark = now, total
    os.close(master)
    try:
        result["rc"] = process.wait(timeout=max(1.0, started + timeout_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        result["timed_out"] = True
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if result["timed_out"]:
        result["rc"] = None
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text.decode("utf-8", "replace"))
    result["stderr"] = plain.replace("\r", "\n")
    result["elapsed_s"] = round(time.monotonic() - started, 3)
    return result


def last_line(text):
    """The last line that says something, which is where tools put the reason."""
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def paused(data):
    """By whom a container is paused, in words; None when it is not. :param dict data: what the engine's inspect says of it."""
    if not (data.get("State") or {}).get("Paused"):
        return None
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open("/proc/%s/comm" % entry) as stream:
                    who = PAUSERS.get(stream.read().strip())
            except (FileNotFoundError, ProcessLookupError):
                continue
            if who:
                return "paused, probably by %s (pid %s)" % (who, entry)
    return "paused by somebody, nobody known for that runs here"


def find_engine(name=None, path=None):
    """``(name, path)`` of the engine wanted, or of the first one found; CommandError when there is none."""
    for candidate in [name] if name else ENGINES:
        found = path or shutil.which(candidate, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        if found and os.access(found, os.X_OK):
            return (name or ("podman" if os.path.basename(found).startswith("podman") else "docker")), found
    wanted = path or name or "docker or podman"
    raise CommandError("no container engine: %s was not found; install it or set engine_path" % wanted,
                       {"cmd": [wanted], "rc": 127, "stdout": "", "stderr": "", "timed_out": False})


class Engine:
    """Docker or podman. ``config_dir`` is a private folder with registry credentials, see :func:`write_credentials`."""

    def __init__(self, name, path, config_dir=None):
        self.name = name
        self.path = path
        self.config_dir = config_dir

    def run(self, args, timeout_s=QUICK_S, stdin=None, check=True, credentials=False, silence_s=None, least_bytes_per_s=0.0, tell=None):
        """Run an engine command; with ``check`` a failure raises CommandError whose text ends in the engine's own reason.

        With ``silence_s`` it is given up when it shows no progress for that long, and with ``tell`` it says how far it is, see :func:`run_watched`.
        """
        env = {}
        if credentials and self.config_dir:
            env = {"DOCKER_CONFIG": self.config_dir, "REGISTRY_AUTH_FILE": os.path.join(self.config_dir, "config.json")}
        command = [self.path] + list(args)
        until = time.monotonic() + RESTART_S
        while True:
            result = run(command, timeout_s, stdin=stdin, env=env) if silence_s is None and tell is None else run_watched(
                command, timeout_s, timeout_s if silence_s is None else silence_s, env, least_bytes_per_s, tell)
            if result["rc"] == 0 or "cannot connect to the docker daemon" not in result["stderr"].lower() or time.monotonic() >= until:
                break
            time.sleep(AGAIN_S)
        if check and result["rc"] != 0:
            reason = last_line(result["stderr"]) or last_line(result["stdout"])
            if result["timed_out"]:
                reason = "no progress for %.0f s" % silence_s if result.get("silent") else "no end after %.0f s" % timeout_s
            raise CommandError("%s %s failed: %s" % (self.name, " ".join(args[:2]), reason), result)
        return result

    def info(self):
        """What ``info`` prints as JSON; CommandError when the engine does not answer."""
        return json.loads(self.run(["info", "--format", "{{json .}}"])["stdout"] or "{}")

    def image(self, reference):
        """``{id, digests, tags, labels, architecture}`` of a local image, or None."""
        result = self.run(["image", "inspect", reference], check=False)
        if result["rc"] != 0:
            if any(text in result["stderr"].lower() for text in ("no such image", "not known", "no such object")):
                return None
            raise CommandError("%s image inspect %s failed: %s" % (self.name, reference, last_line(result["stderr"])), result)
        data = json.loads(result["stdout"])[0]
        identity = data.get("Id") or ""
        return {"id": identity if identity.startswith("sha256:") else "sha256:" + identity, "digests": data.get("RepoDigests") or [],
                "tags": data.get("RepoTags") or [], "labels": (data.get("Config") or {}).get("Labels") or {},
                "architecture": data.get("Architecture")}

    def image_with_digest(self, digest):
        """Name (``repository@digest``) under which a digest is present on this host, or None."""
        listing = self.run(["images", "--digests", "--no-trunc", "--format", "{{.Repository}} {{.Digest}}"])["stdout"]
        for line in listing.splitlines():
            repository, dummy, found = line.strip().partition(" ")
            if found == digest and repository != "<none>":
                return repository + "@" + digest
        return None

    def push(self, reference, timeout_s, folder):
        """Push an image; the digest that the engine says it pushed, or None. ``folder`` is for podman's note of it."""
        if self.name == "podman":
            note = os.path.join(folder, "digest")
            self.run(["push", "--digestfile", note, reference], timeout_s=timeout_s, credentials=True)
            with open(note) as stream:
                return stream.read().strip()
        found = re.findall(r"digest: (sha256:[0-9a-f]{64})", self.run(["push", reference], timeout_s=timeout_s, credentials=True)["stdout"])
        return found[-1] if found else None

    def containers_of(self, reference):
        """Names of the containers, running or not, that were made from this very reference."""
        out = self.run(["ps", "--all", "--no-trunc", "--format", "{{.Names}}\t{{.Image}}"])["stdout"]
        return sorted(line.split("\t")[0] for line in out.splitlines() if line.partition("\t")[2].strip() == reference)

    def insecure_registries(self):
        """Predicate over ``host[:port]``: does this engine speak plain HTTP (or unverified TLS) with that registry?"""
        info = self.info()
        hosts = set()
        for host, entry in ((info.get("RegistryConfig") or {}).get("IndexConfigs") or {}).items():
            if entry.get("Secure") is False:
                hosts.add(host)
        networks = (info.get("RegistryConfig") or {}).get("InsecureRegistryCIDRs") or []
        for host, entry in (info.get("registries") or {}).items():
            if isinstance(entry, dict) and entry.get("Insecure"):
                hosts.add(host)
        return lambda host: host in hosts or in_networks(host, networks)


def in_networks(host, networks):
    """Whether ``host[:port]`` is an address literal (or localhost) of one of the networks."""
    name = host.rsplit(":", 1)[0].strip("[]") if not host.endswith("]") else host.strip("[]")
    try:
        address = ipaddress.ip_address("127.0.0.1" if name == "localhost" else name)
        return any(address in ipaddress.ip_network(network, strict=False) for network in networks)
    except ValueError:
        return False


def write_credentials(folder, registry, username, password, inherit=None):
    """Write ``config.json`` (mode 0600) into a private folder, so that no password stands in an argument list.

    ``inherit`` is an existing configuration whose other settings (proxies) are kept.
    """
    config = dict(inherit or {})
    config.pop("credsStore", None)
    key = "https://index.docker.io/v1/" if registry == "docker.io" else registry
    token = base64.b64encode(("%s:%s" % (username, password)).encode("utf-8")).decode("ascii")
    config["auths"] = dict(config.get("auths") or {})
    config["auths"][key] = {"auth": token}
    config["credHelpers"] = {host: helper for host, helper in (config.get("credHelpers") or {}).items() if host != registry}
    handle = os.open(os.path.join(folder, "config.json"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as stream:
        json.dump(config, stream)
