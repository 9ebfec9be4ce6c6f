# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The I/O of ``npu_info``: looks at one host, changes nothing, judges nothing. Standard library only, no Ansible.

Every source has a deadline and fails alone: what it could not read goes to ``errors`` and the others go on.
"""
from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import hmac
import json
import os
import resource
import selectors
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import npu_smi, survey, version_files, weight_files
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import FIREWALL_TABLE, FIREWALL_UNIT

OUTPUT_LIMIT = 1 << 20
SIOCGIFFLAGS, SIOCGIFADDR = 0x8913, 0x8915
TOOL_PATHS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
ENGINE_DEADLINE_S = 15.0
TOOL_DEADLINE_S = 10.0
INSPECTED_IMAGES = 40
NODE_PATTERNS = ("/dev/davinci*", "/dev/vdavinci*", "/dev/devmm_svm", "/dev/hisi_hdc")
DEVICE_PLUGINS = ("/var/lib/kubelet/device-plugins/Ascend*.sock", "/var/lib/kubelet/device-plugins/davinci*.sock")
SECRET_DIRECTORY = "/etc/vllm-ascend-fleet"
# A probe whose npu-smi can't even be killed keeps this lock through the tool, so the next probe does not add another.
PROBE_LOCK = "/run/vllm-ascend-fleet.npu-smi.lock"
DEEP_TYPES = ("board", "health", "common", "usages", "ecc", "proc-mem")
HCCN_TYPES = (("link", ("-link", "-g")), ("net_health", ("-net_health", "-g")), ("ip", ("-ip", "-g")), ("tls", ("-tls", "-g")))


class Run(object):
    """What became of one tool: rc (int or None), stdout, stderr, timed_out, stuck (outlived SIGKILL), elapsed_s, error (str or None),
    errno (int when it could not be started)."""

    def __init__(self):
        self.rc, self.stdout, self.stderr = None, "", ""
        self.timed_out = self.stuck = False
        self.elapsed_s, self.error, self.errno = 0.0, None, None


def run_tool(arguments, deadline_s, keep_fd=None):
    """Run one tool in the C locale and a session of its own; at the deadline the whole process group is killed.

    arguments: list, the tool by its path; keep_fd: descriptor that the tool inherits. Never raises; returns a Run.
    """
    run, started = Run(), time.monotonic()
    environment = dict(os.environ, LC_ALL="C", LANG="C")
    try:
        # AnsibleModule.run_command knows neither a deadline nor a process group to kill.
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, start_new_session=True,
            pass_fds=() if keep_fd is None else (keep_fd,))
    except OSError as exc:
        run.error, run.errno = "%s: %s" % (arguments[0], exc.strerror or exc), exc.errno
        return run
    chunks = {process.stdout: [], process.stderr: []}
    size = 0
    with selectors.DefaultSelector() as selector:
        for stream in chunks:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map() and not run.timed_out and not run.error:
            remaining = started + deadline_s - time.monotonic()
            events = selector.select(remaining) if remaining > 0 else []
            run.timed_out = not events and started + deadline_s <= time.monotonic()
            for key, _mask in events:
                data = os.read(key.fd, 65536)
                size += len(data)
                chunks[key.fileobj].append(data)
                if not data:
                    selector.unregister(key.fileobj)
                if size > OUTPUT_LIMIT:
                    run.error = "%s printed more than %d bytes" % (arguments[0], OUTPUT_LIMIT)
    try:
        if run.timed_out or run.error:
            os.killpg(process.pid, signal.SIGKILL)
            run.rc = process.wait(2)
        else:
            run.rc = process.wait(max(0.1, started + deadline_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        run.stuck = run.timed_out
        if not run.stuck:   # it closed its output and went on
            run.timed_out = True
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    except OSError as exc:
        run.error = "%s: %s" % (arguments[0], exc.strerror or exc)
    process.stdout.close()
    process.stderr.close()
    run.stdout, run.stderr = (b"".join(chunks[stream]).decode("utf-8", "replace") for stream in (process.stdout, process.stderr))
    run.elapsed_s = time.monotonic() - started
    return run


def find_tool(name, wanted=None):
    """Path of a tool: the wanted one as it is, else the first in PATH and the usual directories; None when there is none."""
    if wanted:
        return wanted
    directories = os.environ.get("PATH", "").split(os.pathsep) + list(TOOL_PATHS)
    return next((path for path in (os.path.join(directory, name) for directory in directories if directory) if os.path.isfile(path)), None)


def read_text(path, limit=OUTPUT_LIMIT):
    """(text or None, error or None) of a small file."""
    try:
        with open(path, "rb") as stream:
            return stream.read(limit).decode("utf-8", "replace"), None
    except OSError as exc:
        return None, "%s: %s" % (path, exc.strerror or exc)


class Reader(object):
    """Collects the raw readings; ``guard`` keeps one source's failure from the others."""

    def __init__(self):
        self.errors = []

    def guard(self, source, default, call, *arguments):
        try:
            return call(*arguments)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as exc:
            self.errors.append({"source": source, "error": "%s: %s" % (type(exc).__name__, exc)})
            return default

    def with_deadline(self, source, default, deadline_s, call, *arguments):
        """As guard, but a call that does not return (a dead network file system) is left behind."""
        box = []
        worker = threading.Thread(target=lambda: box.append(self.guard(source, default, call, *arguments)), daemon=True)
        worker.start()
        worker.join(deadline_s)
        if not box:
            self.errors.append({"source": source, "error": "no answer in %.0f s" % deadline_s})
            return default
        return box[0]


def read(parameters):
    """Look at this host.

    parameters: dict with ``ports`` (list of int), ``paths``, ``weights`` (lists of str), ``state_directory``, ``unit_prefix``,
    ``engine`` (auto, docker, podman), ``engine_path``, ``npu_smi_path`` (str or None), ``timeout_s`` (number), ``deep`` (bool).
    Returns the raw readings for ``survey.assemble``.
    """
    reader = Reader()
    raw = {"errors": reader.errors, "npu_smi": None}
    probe = threading.Thread(target=lambda: raw.update(npu_smi=reader.guard("npu-smi info", None, _probe, parameters)), daemon=True)
    probe.start()
    raw["host"] = reader.guard("host", {}, _host, reader)
    raw["network"] = reader.guard("network", None, _network)
    raw["files"] = reader.guard("version files", {}, _files)
    raw["device_nodes"] = reader.guard("/dev", {}, _device_nodes)
    raw["engine"] = reader.guard("container engine", {"error": "not read"}, _engine, parameters)
    data_root = survey.join_engine(raw["engine"])["data_root"]
    wanted = list(parameters["paths"]) + [path for path in (data_root, parameters["state_directory"]) if path]
    raw["paths"] = reader.with_deadline("paths", {}, TOOL_DEADLINE_S, lambda: dict((path, _path(path)) for path in wanted))
    raw["weights"] = reader.with_deadline("weights", {}, TOOL_DEADLINE_S, lambda: dict((path, _weights(path)) for path in parameters["weights"]))
    raw["device_plugins"] = sorted(found for pattern in DEVICE_PLUGINS for found in glob.glob(pattern))
    raw["instances"] = reader.guard("instances", {}, _instances, parameters, reader)
    for key, name in (("state", "host.json"), ("lease", "rollout.json")):
        raw[key] = survey.read_manifest(read_text(os.path.join(parameters["state_directory"], name))[0] or "{}") or {}
    raw["units"] = reader.guard("systemd", {}, _units, parameters["unit_prefix"], sorted(raw["instances"]), reader)
    raw["tables"] = {"read_at": time.monotonic(), "texts": []}
    raw["ports"] = reader.guard("ports", {}, _ports, parameters["ports"], raw["tables"]["texts"])
    probe.join(parameters["timeout_s"] + 5)
    if raw["npu_smi"] is None:
        problem = None if probe.is_alive() else ("command-failed", "npu-smi could not be run, see errors")
        raw["npu_smi"] = survey.npu_smi_result(None, None, probe.is_alive(), parameters["timeout_s"], "", "", problem)
    info = raw["npu_smi"]["info"]
    raw["pci"] = reader.guard("sysfs", {}, _pci, [survey.bus_key(chip["bus_id"]) for chip in info["chips"]])
    raw["pids"] = reader.guard("/proc", {}, lambda: dict((process["pid"], _process(process["pid"])) for process in info["processes"]))
    if parameters["deep"] and not info.get("error"):
        raw["deep"] = reader.guard("deep", {}, _deep, parameters, raw["npu_smi"]["path"], info, raw["device_nodes"], reader)
    return raw


def answer(parameters, kept=None):
    """The whole survey. :returns: {"survey": see docs/architecture.md}; for the parameters see the module npu_info.

    kept: dict that gets "units" and "tables", each with the time at which it was read, for whoever looks further at once.
    """
    started = time.monotonic()
    raw = read(parameters)
    if kept is not None:
        kept.update(units=raw["units"], tables=raw["tables"])
    found = survey.assemble(raw, parameters["unit_prefix"])
    found["elapsed_s"] = round(time.monotonic() - started, 3)
    return {"changed": False, "survey": found}


def _lock(deadline):
    """Descriptor of the held probe lock, None when this user cannot have one; BlockingIOError when another probe still runs."""
    try:
        handle = os.open(PROBE_LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(handle)
                raise
            time.sleep(0.1)


def _probe(parameters):
    """One npu-smi info, with one more try when the first hangs; both together cost the deadline once."""
    started = time.monotonic()
    path = find_tool("npu-smi", parameters["npu_smi_path"])
    problem = None
    if path is None or not os.path.exists(path):
        problem = ("command-not-found", "npu-smi: not found (%s)" % (path or "looked in PATH and %s" % ", ".join(TOOL_PATHS)))
    elif not os.access(path, os.X_OK):
        problem = ("permission-denied", "%s: not executable" % path)
    if problem:
        return survey.npu_smi_result(path, None, False, 0.0, "", "", problem)
    run, lock, deadline = Run(), None, started + parameters["timeout_s"]
    try:
        lock = _lock(deadline)
        for share in (2.0 / 3, 1.0):
            left = deadline - time.monotonic()
            run = run_tool([path, "info"], left * share, keep_fd=lock)
            if not run.timed_out or run.stuck:
                break
    except BlockingIOError:
        run.error = "another npu-smi of an earlier probe still runs and holds %s" % PROBE_LOCK
        problem = ("timeout", run.error)
    finally:
        if lock is not None:
            os.close(lock)
    if run.error and not problem:
        # By number: the text is in the language of the host.
        kinds = {errno.ENOENT: "command-not-found", errno.EACCES: "permission-denied", errno.ENOEXEC: "wrong-architecture"}
        problem = (kinds.get(run.errno, "command-failed" if run.errno else "unrecognized"), run.error)
    return survey.npu_smi_result(path, run.rc, run.timed_out, time.monotonic() - started, run.stdout, run.stderr, problem)


def _host(reader):
    name = os.uname()
    memory = {}
    for line in (read_text("/proc/meminfo")[0] or "").split("\n"):
        words = line.split()
        if len(words) == 3:
            memory[words[0]] = int(words[1]) // 1024
    release = version_files.parse_pairs(read_text("/etc/os-release")[0])[0]
    boot = [line.split()[1] for line in (read_text("/proc/stat")[0] or "").split("\n") if line.startswith("btime ")]
    enforce = read_text("/sys/fs/selinux/enforce")[0]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "hostname": name.nodename, "architecture": name.machine, "kernel": name.release,
        "boot_id": _first_line("/proc/sys/kernel/random/boot_id"), "boot_epoch_s": int(boot[0]) if boot else None,
        "python": "%d.%d.%d" % sys.version_info[:3], "epoch_s": time.time(), "uid": os.getuid(),
        "os": {"id": release.get("ID"), "version_id": release.get("VERSION_ID"), "pretty_name": release.get("PRETTY_NAME")},
        "cpu_count": os.cpu_count(), "memory_total_mib": memory.get("MemTotal:"), "memory_available_mib": memory.get("MemAvailable:"),
        "selinux": "disabled" if enforce is None else ("enforcing" if enforce.strip() == "1" else "permissive"),
        "limits": {
            "nofile_soft": soft, "nofile_hard": hard,
            "pid_max": _number("/proc/sys/kernel/pid_max"), "threads_max": _number("/proc/sys/kernel/threads-max"),
        },
        "port_range": [int(word) for word in (_first_line("/proc/sys/net/ipv4/ip_local_port_range") or "").split()],
        "reserved_ports": _first_line("/proc/sys/net/ipv4/ip_local_reserved_ports"),
        "proxies": _proxies(), "systemd": reader.guard("systemd", None, _systemd),
    }


def _network():
    """The first IPv4 address of each interface that is up, and which one leads to everywhere; HCCL and gloo are told both."""
    interfaces = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for _index, name in socket.if_nameindex():
            asked = struct.pack("256s", name.encode()[:15])
            try:
                up = struct.unpack("H", fcntl.ioctl(handle.fileno(), SIOCGIFFLAGS, asked)[16:18])[0] & 1
                address = socket.inet_ntoa(fcntl.ioctl(handle.fileno(), SIOCGIFADDR, asked)[20:24])
            except OSError:
                # It has no IPv4 address, or is gone.
                continue
            if up and not address.startswith("127."):
                interfaces[name] = address
    routes = [line.split() for line in (read_text("/proc/net/route")[0] or "").split("\n")[1:]]
    default = [(int(words[6]), words[0]) for words in routes if len(words) > 7 and words[1] == words[7] == "00000000" and words[0] in interfaces]
    return {"interfaces": interfaces, "default": min(default)[1] if default else None}


def _first_line(path):
    text = read_text(path)[0]
    return text.strip() if text is not None else None


def _number(path):
    text = _first_line(path)
    return int(text) if text and text.isdigit() else None


def _proxies():
    found = {}
    lines = version_files.parse_pairs(read_text("/etc/environment")[0])[0]
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        value = next((source[key] for source in (os.environ, lines) for key in (name, name.upper()) if source.get(key)), None)
        if value:
            found[name] = survey.without_userinfo(value)
    return found


def _systemd():
    if not os.path.isdir("/run/systemd/system"):
        return None
    run = run_tool([find_tool("systemctl") or "systemctl", "show", "--property=Version,SystemState"], TOOL_DEADLINE_S)
    values = dict(line.partition("=")[::2] for line in run.stdout.split("\n") if "=" in line)
    if run.error or run.rc:
        raise OSError("systemctl show: %s" % (run.error or run.stderr.strip()[:200] or "status %s" % run.rc))
    return {"state": values.get("SystemState"), "version": values.get("Version")}


def _files():
    """Texts of the version files; each {"path", "text", "error"}."""
    files = {"install_info": _file("/etc/ascend_install.info")}
    info = version_files.parse_install_info(files["install_info"]["text"]) if files["install_info"]["text"] else None
    paths = version_files.install_paths(info)
    for name in ("driver", "firmware"):
        files[name] = dict(_file(os.path.join(paths[name], name, "version.info")), install_path=paths[name])
    files["driver"]["mtime"] = os.stat(files["driver"]["path"]).st_mtime if files["driver"]["text"] is not None else None
    machine = "%s-linux" % os.uname().machine
    bases = ("/usr/local/Ascend/cann", "/usr/local/Ascend/ascend-toolkit/latest")
    toolkits = [os.path.join(base, machine, "ascend_toolkit_install.info") for base in bases]
    files["toolkit"] = _file(next((path for path in toolkits if os.path.exists(path)), toolkits[0]))
    files["nnal"] = _file("/usr/local/Ascend/nnal/atb/latest/version.info")
    return files


def _file(path):
    text, error = read_text(path)
    return {"path": path, "text": text, "error": error}


def _device_nodes():
    nodes = {}
    for path in sorted(found for pattern in NODE_PATTERNS for found in glob.glob(pattern)):
        seen = os.stat(path)
        nodes[path] = {
            "mode": "%04o" % stat.S_IMODE(seen.st_mode), "uid": seen.st_uid, "gid": seen.st_gid, "character": stat.S_ISCHR(seen.st_mode),
        }
    return nodes


def _path(path):
    """Kind, size, mode and the free space of the file system that holds it or would hold it."""
    result = {"exists": True, "kind": None, "size_bytes": None, "mode": None, "free_bytes": None, "free_inodes": None, "read_only": None,
              "error": None}
    try:
        seen = os.stat(path)
        kinds = ((stat.S_ISDIR, "directory"), (stat.S_ISREG, "file"), (stat.S_ISCHR, "character"))
        kind = next((kind for test, kind in kinds if test(seen.st_mode)), "other")
        result.update(kind=kind, size_bytes=seen.st_size, mode="%04o" % stat.S_IMODE(seen.st_mode))
    except OSError as exc:
        result["exists"] = False
        if exc.errno not in (errno.ENOENT, errno.ENOTDIR):
            result["error"] = exc.strerror
    parent = os.path.abspath(path)
    while not os.path.exists(parent) and parent != "/":
        parent = os.path.dirname(parent)
    try:
        space = os.statvfs(parent)
        # btrfs and others count no inodes: 0 of 0 is not "none left".
        result.update(
            free_bytes=space.f_bavail * space.f_frsize, free_inodes=space.f_favail if space.f_files else None,
            read_only=bool(space.f_flag & os.ST_RDONLY))
    except OSError as exc:
        result["error"] = exc.strerror
    return result


def _weights(path):
    """A model's directory: its config, the bytes that are there and the bytes that its index promises."""
    result = {
        "exists": os.path.isdir(path), "config": None, "size_bytes": None, "index_total_size": None, "missing_files": [], "small_files": [],
        "damaged_files": [], "quantization_description": False, "error": None,
    }
    if not result["exists"]:
        return result
    problems = []
    sizes = {}
    try:
        with os.scandir(path) as entries:
            sizes = dict((entry.name, entry.stat().st_size) for entry in entries if entry.is_file())
    except OSError as exc:
        problems.append("%s: %s" % (path, exc.strerror))
    weights = dict((name, size) for name, size in sizes.items() if name.endswith((".safetensors", ".bin", ".pt", ".pth")))
    result["size_bytes"] = sum(weights.values())
    # A shard of some hundred bytes is a Git-LFS pointer or an error page.
    result["small_files"] = sorted(name for name, size in weights.items() if size < 1024)
    # Headers only: two short reads a shard.
    for name in sorted(name for name, size in weights.items() if name.endswith(".safetensors") and size >= 1024):
        try:
            wrong = weight_files.read_shard(os.path.join(path, name))[2]
        except OSError as exc:
            wrong = exc.strerror or str(exc)
        if wrong:
            result["damaged_files"].append("%s: %s" % (name, wrong))
    result["quantization_description"] = "quant_model_description.json" in sizes
    for name, key in (("config.json", "config"), ("model.safetensors.index.json", "index")):
        if name not in sizes:
            if key == "config":
                problems.append("no config.json in %s" % path)
            continue
        text, error = read_text(os.path.join(path, name), 64 << 20)
        try:
            value = json.loads(text) if error is None else None
        except ValueError as exc:
            value, error = None, "%s: not JSON: %s" % (name, exc)
        if error or not isinstance(value, dict):
            problems.append(error or "%s: not a JSON object" % name)
        elif key == "config":
            result["config"] = value
        else:
            total = (value.get("metadata") or {}).get("total_size")
            result["index_total_size"] = int(total) if isinstance(total, (int, float)) else None
            result["missing_files"] = sorted(set((value.get("weight_map") or {}).values()) - set(sizes))
    result["error"] = "; ".join(problems) or None
    return result


def _get(path, resource_path, deadline, kind=dict):
    """GET over the engine's unix socket in HTTP/1.0, so that the answer is neither chunked nor kept open; returns its JSON, a kind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(max(0.1, deadline - time.monotonic()))
        connection.connect(path)
        connection.sendall(("GET %s HTTP/1.0\r\nHost: engine\r\n\r\n" % resource_path).encode("ascii"))
        chunks = []
        while True:
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            data = connection.recv(1 << 16)
            if not data:
                break
            chunks.append(data)
    head, _blank, body = b"".join(chunks).partition(b"\r\n\r\n")
    status = head.split(b"\r\n")[0].decode("latin-1").split(" ")
    if len(status) < 2 or status[1] != "200":
        raise OSError("%s answers %s to %s: %s" % (path, " ".join(status[1:]), resource_path, body[:200].decode("utf-8", "replace").strip()))
    return _json(body.decode("utf-8", "replace"), kind, "%s %s" % (path, resource_path))


def _json(text, kind, source):
    value = json.loads(text)
    if not isinstance(value, kind):
        raise ValueError("%s does not answer with a JSON %s" % (source, "object" if kind is dict else "list"))
    return value


def _engine(parameters):
    """Raw answers of the engine; over its socket where there is one, else (podman) by its command line."""
    sockets = {"docker": "/var/run/docker.sock", "podman": "/run/podman/podman.sock"}
    wanted = [parameters["engine"]] if parameters["engine"] != "auto" else ["docker", "podman"]
    present = [name for name in wanted if os.path.exists(sockets[name]) or find_tool(name)]
    raw = {"name": None, "path": None, "error": None}
    if not present:
        raw["error"] = "neither a socket nor a command of %s" % " or ".join(wanted)
        return raw
    name = next((name for name in present if os.path.exists(sockets[name])), present[0])
    raw.update(name=name, path=find_tool(name, parameters["engine_path"]))
    try:
        if name == "podman" and not os.path.exists(sockets[name]):
            _podman(raw)
        else:
            _by_socket(raw, sockets[name])
    except (OSError, ValueError) as exc:
        raw["error"] = "%s: %s" % (sockets[name] if os.path.exists(sockets[name]) else raw["path"], exc)
    return raw


def _by_socket(raw, path):
    deadline = time.monotonic() + ENGINE_DEADLINE_S
    raw["version"] = _get(path, "/version", deadline)
    raw["info"] = _get(path, "/info", deadline)
    raw["containers"] = _get(path, "/containers/json?all=1", deadline, list)
    running = [entry["Id"] for entry in raw["containers"] if entry.get("State") == "running"]
    raw["container_inspects"] = _each(path, "/containers/%s/json", running, deadline)
    raw["images"] = _get(path, "/images/json?digests=1", deadline, list)
    # Only inspecting tells an image's architecture; those that may be ours come first.
    order = sorted(raw["images"], key=lambda entry: "ascend" not in json.dumps([entry.get("RepoTags"), entry.get("RepoDigests"), entry.get("Labels")]))
    raw["image_inspects"] = _each(path, "/images/%s/json", [entry["Id"] for entry in order[:INSPECTED_IMAGES]], deadline)


def _each(path, form, identities, deadline):
    found = {}
    for identity in identities:
        try:
            found[identity] = _get(path, form % identity, deadline)
        except OSError as exc:
            if "answers 404" not in str(exc):   # gone since the listing
                raise
    return found


def _podman(raw):
    def ask(kind, *arguments):
        run = run_tool([raw["path"]] + list(arguments), ENGINE_DEADLINE_S)
        if run.error or run.timed_out or run.rc:
            raise OSError("podman %s: %s" % (arguments[0], run.error or (run.timed_out and "no answer") or run.stderr.strip()[:300]))
        return _json(run.stdout.strip() or "[]", kind, "podman %s" % arguments[0])
    raw["info"] = ask(dict, "info", "--format", "json")
    version = raw["info"].get("version") or {}
    raw["version"] = {"Version": version.get("Version"), "ApiVersion": version.get("APIVersion")}
    raw["containers"] = ask(list, "ps", "--all", "--no-trunc", "--format", "json")
    running = [entry["Id"] for entry in raw["containers"] if entry.get("State") == "running"]
    raw["container_inspects"] = dict((item["Id"], item) for item in ask(list, "container", "inspect", *running)) if running else {}
    raw["images"] = ask(list, "images", "--no-trunc", "--format", "json")
    identities = sorted(set(entry["Id"] for entry in raw["images"]))[:INSPECTED_IMAGES]
    inspects = ask(list, "image", "inspect", *identities) if identities else []
    raw["image_inspects"] = dict(("sha256:" + item["Id"].replace("sha256:", ""), item) for item in inspects)


def _instances(parameters, reader):
    """What is installed, with the sha256 of its files; with ``texts`` also the texts themselves."""
    base, prefix = os.path.join(parameters["state_directory"], "instances"), parameters["unit_prefix"]
    found = {}
    if not os.path.isdir(base):
        return found
    for name in sorted(os.listdir(base)):
        directory = os.path.join(base, name)
        if not os.path.isdir(directory):
            continue
        links = {}
        for link in ("current", "previous"):
            try:
                links[link] = os.path.basename(os.readlink(os.path.join(directory, link)))
            except OSError:
                links[link] = None   # a release that never was, or was removed: that is a fact, not a fault
        text, error = read_text(os.path.join(directory, "current", "manifest.json")) if links["current"] else (None, None)
        manifest = survey.read_manifest(text) if text else None
        if links["current"] and manifest is None:
            reader.errors.append({"source": "instances", "error": error or "%s/current/manifest.json is not a JSON object" % directory})
        found[name] = {"release": links["current"], "previous": links["previous"], "manifest": manifest,
                       "sha256": _hashes(os.path.join(directory, "current")) if links["current"] else {},
                       "whole": _whole(directory, links["current"], "%s%s.service" % (parameters["unit_prefix"], name)) if links["current"] else None,
                       "secret": _secret(os.path.join(SECRET_DIRECTORY, name + ".secret"), parameters.get("nonce"))}
        if parameters.get("texts"):
            found[name]["files"] = {
                "unit": read_text("/etc/systemd/system/%s%s.service" % (prefix, name))[0],
                "environment": read_text(os.path.join(directory, "current", "environment"))[0]}
    return found


def _hashes(directory):
    """{file: sha256} of a release's folder."""
    found = {}
    try:
        for name in sorted(os.listdir(directory)):
            with open(os.path.join(directory, name), "rb") as stream:
                found[name] = hashlib.sha256(stream.read(OUTPUT_LIMIT)).hexdigest()
    except OSError:
        return {}   # compared with what is wanted, nothing is as wrong as it is
    return found


def _whole(directory, release, unit):
    """Whether a release's files are those that its id stands for; None when they cannot be read."""
    texts = [read_text(os.path.join(directory, "current", name))[0] for name in (unit, "environment")]
    return None if None in texts else survey.release_id(texts[0], texts[1], release) == release


def _secret(path, nonce):
    """{"mode", "hmac"} of a secret's file, keyed with what the asker made up, so that the answer is worth nothing to others; None without one."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
        with open(path, "rb") as stream:
            content = stream.read(OUTPUT_LIMIT)
    except OSError:
        return None
    return {"mode": "%04o" % mode, "hmac": hmac.new(nonce.encode("ascii"), content, "sha256").hexdigest() if nonce else None}


def _units(prefix, instances, reader):
    """One ``systemctl show`` of all our units, and the sha256 of their files."""
    hashes = {}
    for path in sorted(glob.glob("/etc/systemd/system/%s*.service" % glob.escape(prefix))):
        content, error = None, None
        try:
            with open(path, "rb") as stream:
                content = stream.read(OUTPUT_LIMIT)
        except OSError as exc:
            error = "%s: %s" % (path, exc.strerror)
        if error:
            reader.errors.append({"source": "systemd", "error": error})
        hashes[os.path.basename(path)] = hashlib.sha256(content).hexdigest() if content else None
    names = sorted(set(hashes).union("%s%s.service" % (prefix, name) for name in instances))
    text, read_at = "", time.monotonic()
    if names and os.path.isdir("/run/systemd/system"):
        command = [find_tool("systemctl") or "systemctl", "show", "--property=" + ",".join(survey.UNIT_PROPERTIES), "--"] + names
        run = run_tool(command, TOOL_DEADLINE_S)
        text = run.stdout
        if run.error or run.timed_out or run.rc:
            reader.errors.append({"source": "systemd", "error": "systemctl show: %s" % (run.error or run.stderr.strip()[:200] or "no answer")})
    # Others flush tables behind systemd's back.
    guarded = FIREWALL_UNIT in hashes and run_tool([find_tool("nft") or "nft", "list", "table"] + list(FIREWALL_TABLE), TOOL_DEADLINE_S).rc == 0
    return {"text": text, "sha256": hashes, "guarded": guarded, "read_at": read_at}


def _ports(ports, tables):
    """A plain bind on both families (with SO_REUSEADDR it would succeed beside a vLLM that is still loading), then who listens."""
    found = {}
    for port in ports:
        found[port] = {"bind": {"IPv4": _bind(socket.AF_INET, "0.0.0.0", port), "IPv6": _bind(socket.AF_INET6, "::", port)}}
    taken = set(port for port, seen in found.items() if any(seen["bind"].values()))
    if not taken:
        return found
    wanted = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        # The kernel walks through all of its sockets' places, half a million on a large host, however few are taken.
        tables.append(read_text(table, 64 << 20)[0] or "")
        for port, entry in survey.parse_listeners(tables[-1], taken).items():
            found[port]["lingering"] = found[port].get("lingering", 0) + entry["lingering"]
            for inode in entry["inodes"]:
                wanted["socket:[%s]" % inode] = port
                found[port]["listening"] = True
    for pid, link in _open_sockets() if wanted else ():
        port = wanted.get(link)
        if port is not None and "listener" not in found[port]:
            found[port]["listener"] = dict(_process(pid) or {"command": None, "cgroup": None}, pid=pid)
    return found


def _bind(family, address, port):
    try:
        handle = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return None   # a kernel without IPv6 has no port of it to take
    with handle:
        try:
            if family == socket.AF_INET6:
                handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            handle.bind((address, port))
        except OSError as exc:
            if exc.errno == errno.EADDRNOTAVAIL:
                return None
            return survey.IN_USE if exc.errno == errno.EADDRINUSE else exc.strerror
    return None


def _open_sockets():
    """(pid, "socket:[inode]") of every process that this user may look into."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        directory = "/proc/%s/fd" % name
        try:
            handles = os.listdir(directory)
        except OSError:
            continue   # ended, or another user's
        for handle in handles:
            try:
                link = os.readlink("%s/%s" % (directory, handle))
            except OSError:
                continue
            if link.startswith("socket:"):
                yield int(name), link


def _process(pid):
    """{"command", "cgroup"} of a process, None when it is gone. Arguments may hold secrets: only those before the first option count."""
    arguments = (read_text("/proc/%d/cmdline" % pid)[0] or "").split("\0")
    cgroup = read_text("/proc/%d/cgroup" % pid)[0]
    if cgroup is None:
        return None
    plain = []
    for word in arguments[:4]:
        if not word or word.startswith("-") or "=" in word or "@" in word:
            break
        plain.append(word)
    return {"command": " ".join(plain)[:200] or _first_line("/proc/%d/comm" % pid), "cgroup": cgroup}


def _pci(bus_ids):
    """{address: {"vendor", "device", "numa_node"}} of every Ascend chip on the PCI bus, and of what has one of the given bus ids."""
    found = {}
    for path in glob.glob("/sys/bus/pci/devices/*"):
        address = os.path.basename(path)
        vendor = _first_line(path + "/vendor")
        if address not in bus_ids and (vendor != survey.HUAWEI or os.path.exists(path + "/physfn")):
            continue
        device = _first_line(path + "/device")
        if address in bus_ids or survey.is_npu(vendor, device, _first_line(path + "/class")):
            node = _first_line(path + "/numa_node")
            found[address] = {"vendor": vendor, "device": device, "numa_node": int(node) if node and node.isdigit() else None}
    return found


def ping(parameters):
    """Whether each of this host's chips reaches the chips of other hosts; all chips ask side by side. This only looks.

    parameters: {"pings": {davinci number as text: [address]}, "timeout_s"}. :returns: {"pings": {number: {address: "3 of 3" or None}}}.
    """
    found, until = dict((number, {}) for number in parameters["pings"]), time.monotonic() + parameters["timeout_s"]
    hccn = _hccn_tool()

    def ask(number, addresses):
        for address in addresses:
            left = until - time.monotonic()
            run = run_tool([hccn, "-i", number, "-ping", "-g", "address", address], min(TOOL_DEADLINE_S, left)) if hccn and left > 0.5 else Run()
            found[number][address] = survey.parse_ping(run.stdout + run.stderr)

    threads = [threading.Thread(target=ask, args=item, daemon=True) for item in parameters["pings"].items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"pings": found}


def _hccn_tool():
    return find_tool("hccn_tool") or next((tool for tool in ("/usr/local/Ascend/driver/tools/hccn_tool",) if os.path.exists(tool)), None)


def _deep(parameters, path, info, device_nodes, reader):
    """The slow sources, one tool at a time within one more deadline: info -m, -t per NPU, hccn_tool per device."""
    deadline = time.monotonic() + parameters["timeout_s"]
    late = []

    def ask(tool, *arguments):
        left = deadline - time.monotonic()
        source = " ".join((os.path.basename(tool),) + arguments)
        if left < 0.5:
            late.append(source)
            return None
        run = run_tool([tool] + list(arguments), min(20.0, left))
        if run.error or run.timed_out:
            reader.errors.append({"source": source, "error": run.error or "no answer within its deadline"})
            return None
        return run.stdout + run.stderr

    text = ask(path, "info", "-m")
    result = {"mapping": npu_smi.parse_mapping(text) if text is not None else None, "npus": {}, "network": {}}
    for npu in sorted(set(chip["npu_id"] for chip in info["chips"] if chip["npu_id"] is not None)):
        result["npus"][str(npu)] = {}
        for query in DEEP_TYPES:
            text = ask(path, "info", "-t", query, "-i", str(npu))
            result["npus"][str(npu)][query] = npu_smi.parse_key_values(text, query) if text is not None else None
    hccn = _hccn_tool()
    for number in sorted(number for number in map(survey.davinci_number, device_nodes) if number is not None) if hccn else ():
        answers = {}
        for key, arguments in HCCN_TYPES:
            text = ask(hccn, "-i", str(number), *arguments)
            answers[key] = survey.parse_hccn(key, text) if text is not None else None
        result["network"][str(number)] = answers
    if late:
        reader.errors.append({"source": "deep", "error": "%d of its questions had no time left, from %s on; raise timeout_s" % (len(late), late[0])})
    return result
