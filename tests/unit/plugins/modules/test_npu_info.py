# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""npu_info as a host runs it: a process of its own, a scripted npu-smi, the true /proc of this machine."""
from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

ansible = pytest.importorskip("ansible.module_utils.basic")

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import survey, survey_sources  # noqa: E402  (as above: only with ansible)

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "fixtures", "npu-smi")
COLLECTIONS = os.path.abspath(survey.__file__).partition("%sansible_collections%s" % (os.sep, os.sep))[0]
ANSIBLE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(ansible.__file__))))


def script(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def npu_smi(tmp_path):
    fixture = os.path.join(FIXTURES, "06-910B3-2npu-processes.txt")
    return script(tmp_path / "npu-smi", 'echo call >>"%s"\ncat "%s"\n' % (tmp_path / "calls", os.path.abspath(fixture)))


def run(check=False, **parameters):
    """(rc, result) of the module in a process of its own."""
    parameters["_ansible_check_mode"] = check
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([COLLECTIONS, ANSIBLE]))
    done = subprocess.run(
        [sys.executable, "-m", "ansible_collections.vllm_ascend.fleet.plugins.modules.npu_info"], env=environment, check=False,
        input=json.dumps({"ANSIBLE_MODULE_ARGS": parameters}).encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.stdout, done.stderr.decode()
    return done.returncode, json.loads(done.stdout.decode())


def surveyed(**parameters):
    rc, result = run(**parameters)
    assert rc == 0 and result["changed"] is False, result
    return result["survey"]


def sources_of(result):
    return [entry["source"] for entry in result["errors"]]


@pytest.mark.parametrize("check", [False, True])
def test_one_call_of_npu_smi_and_nothing_changes(npu_smi, tmp_path, check):
    before = sorted(os.listdir(str(tmp_path)))
    rc, result = run(check=check, npu_smi_path=npu_smi, state_directory=str(tmp_path / "state"))
    assert rc == 0 and result["changed"] is False
    info = result["survey"]["npu_smi"]
    assert (info["rc"], info["timed_out"], info["info"]["driver_version"]) == (0, False, "25.5.1")
    assert (result["survey"]["schema"], result["survey"]["family"], len(result["survey"]["chips"])) == (1, "910b", 2)
    assert result["survey"]["host"]["architecture"] == os.uname()[4]
    assert (tmp_path / "calls").read_text() == "call\n"
    assert sorted(os.listdir(str(tmp_path))) == sorted(before + ["calls"])


def test_missing_and_unusable_tool(tmp_path):
    result = surveyed(npu_smi_path=str(tmp_path / "none"))
    assert (result["npu_smi"]["info"]["kind"], result["chips"], result["family"]) == ("command-not-found", [], None)
    assert "npu-smi info" in sources_of(result)
    (tmp_path / "npu-smi").write_text("x")
    assert surveyed(npu_smi_path=str(tmp_path / "npu-smi"))["npu_smi"]["info"]["kind"] == "permission-denied"
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF\x00\x00")
    broken.chmod(0o755)
    assert surveyed(npu_smi_path=str(broken))["npu_smi"]["info"]["kind"] == "wrong-architecture"


def test_failing_tool_keeps_its_code(tmp_path):
    tool = script(tmp_path / "npu-smi", 'echo "dcmi module initialize failed. ret is -8005"; exit 187\n')
    info = surveyed(npu_smi_path=tool)["npu_smi"]
    assert (info["rc"], info["info"]["kind"], info["info"]["ret"]) == (187, "dcmi-init-failed", -8005)


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid) as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_hanging_tool_is_tried_twice_and_killed_with_its_children(tmp_path):
    tool = script(tmp_path / "npu-smi", 'echo $$ >>"%s"\nsleep 300 &\necho $! >>"%s"\necho "Initialize SchedulerClient..."\nwait\n' % (
        tmp_path / "pids", tmp_path / "pids"))
    info = surveyed(npu_smi_path=tool, timeout_s=3)["npu_smi"]
    assert (info["timed_out"], info["info"]["kind"]) == (True, "timeout")
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 4
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def test_a_second_try_that_answers_counts(tmp_path):
    fixture = os.path.abspath(os.path.join(FIXTURES, "01-910B2-8chip-healthy.txt"))
    tool = script(tmp_path / "npu-smi", 'if [ -e "%s" ]; then cat "%s"; else : >"%s"; sleep 300; fi\n' % (tmp_path / "once", fixture, tmp_path / "once"))
    result = surveyed(npu_smi_path=tool, timeout_s=6)
    assert result["npu_smi"]["timed_out"] is False and len(result["chips"]) == 8


def test_no_second_probe_beside_one_that_cannot_be_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(survey_sources, "PROBE_LOCK", str(tmp_path / "lock"))
    tool = script(tmp_path / "npu-smi", 'echo call >>"%s"\n' % (tmp_path / "calls"))
    held = survey_sources._lock(time.monotonic())
    try:
        answer = survey_sources._probe({"npu_smi_path": tool, "timeout_s": 0.3})
    finally:
        os.close(held)
    assert answer["info"]["kind"] == "timeout" and "another npu-smi of an earlier probe" in answer["info"]["excerpt"]
    assert not (tmp_path / "calls").exists()
    survey_sources._probe({"npu_smi_path": tool, "timeout_s": 5})
    assert (tmp_path / "calls").read_text() == "call\n"


def test_endless_output_is_cut(tmp_path):
    tool = script(tmp_path / "npu-smi", "exec yes\n")
    info = surveyed(npu_smi_path=tool, timeout_s=20)["npu_smi"]
    assert info["info"]["kind"] == "unrecognized" and "printed more than" in info["info"]["excerpt"]


def test_ports(npu_smi):
    with socket.socket() as listening, socket.socket() as loading, socket.socket() as free:
        for handle in (listening, loading, free):
            handle.bind(("127.0.0.1", 0))
        numbers = [handle.getsockname()[1] for handle in (listening, loading, free)]
        listening.listen(1)
        free.close()
        ports = surveyed(npu_smi_path=npu_smi, ports=numbers)["ports"]
    taken, held, spare = [ports[str(number)] for number in numbers]
    assert (taken["free"], taken["listener"]["pid"], taken["listener"]["instance"]) == (False, os.getpid(), None)
    assert "Address already in use" in taken["error"]
    assert held["free"] is False and held["listener"] is None and "still loading" in held["error"]
    assert spare == {"free": True, "error": None, "listener": None}


def test_paths_weights_and_instances(npu_smi, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "gemma4"}')
    (model / "model-1.safetensors").write_bytes(b"0" * 5000)
    (model / "model-2.safetensors").write_bytes(b"version https://git-lfs")
    (model / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {"total_size": 9000}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-3.safetensors"}}))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_text("{")
    release = tmp_path / "state" / "instances" / "gemma" / "releases" / "0123456789ab"
    release.mkdir(parents=True)
    (release / "manifest.json").write_text('{"release": "0123456789ab"}')
    (tmp_path / "state" / "instances" / "gemma" / "current").symlink_to("releases/0123456789ab")
    (tmp_path / "state" / "instances" / "new").mkdir()
    result = surveyed(
        npu_smi_path=npu_smi, state_directory=str(tmp_path / "state"), paths=[str(model), str(tmp_path / "none" / "deeper"), "/dev/null"],
        weights=[str(model), str(damaged), str(tmp_path / "none")])
    weights = result["weights"][str(model)]
    assert (weights["config"], weights["size_bytes"], weights["index_total_size"]) == ({"model_type": "gemma4"}, 5023, 9000)
    assert (weights["missing_files"], weights["small_files"], weights["error"]) == (["model-3.safetensors"], ["model-2.safetensors"], None)
    assert weights["damaged_files"] == ["model-1.safetensors: no safetensors file: its first 8 bytes are not the length of a header"]
    assert "config.json: not JSON" in result["weights"][str(damaged)]["error"]
    assert result["weights"][str(tmp_path / "none")]["exists"] is False
    assert result["paths"][str(model)]["kind"] == "directory" and result["paths"][str(model)]["free_bytes"] > 0
    assert result["paths"][str(tmp_path / "none" / "deeper")]["exists"] is False and result["paths"][str(tmp_path / "none" / "deeper")]["free_bytes"] > 0
    assert result["paths"]["/dev/null"]["kind"] == "character"
    assert result["instances"]["gemma"]["release"] == "0123456789ab" and result["instances"]["gemma"]["manifest"] == {"release": "0123456789ab"}
    assert result["instances"]["gemma"]["sha256"] == {"manifest.json": hashlib.sha256(b'{"release": "0123456789ab"}').hexdigest()}
    assert result["instances"]["gemma"]["whole"] is None
    new = result["instances"]["new"]
    assert (new["release"], new["previous"], new["manifest"], new["sha256"], new["secret"]) == (None, None, None, {}, None)


@pytest.mark.parametrize("texts", [False, True])
def test_installed_texts_come_only_when_asked_for(npu_smi, tmp_path, texts):
    home = tmp_path / "state" / "instances" / "one"
    (home / "releases" / "a").mkdir(parents=True)
    (home / "releases" / "a" / "manifest.json").write_text("{}")
    (home / "releases" / "a" / "environment").write_text("A=1\n")
    (home / "current").symlink_to("releases/a")
    found = surveyed(npu_smi_path=npu_smi, state_directory=str(tmp_path / "state"), texts=texts)["instances"]["one"]
    assert found.get("files") == ({"unit": None, "environment": "A=1\n"} if texts else None)


@pytest.mark.parametrize("parameters, message", [
    ({"ports": [0]}, "ports: 0 is not a TCP port; give numbers from 1 to 65535"), ({"timeout_s": 0}, "timeout_s: 0 is no deadline; give at least 1 second"),
    ({"engine": "lxc"}, "value of engine must be one of")])
def test_bad_parameters(parameters, message):
    rc, result = run(**parameters)
    assert rc == 1 and message in result["msg"]


class Listener(socket.socket):
    """Its close also ends the thread in accept(), which would else take a connection from whoever gets the descriptor next."""

    thread = None

    def close(self):
        if self.thread is not None:
            self.shutdown(socket.SHUT_RDWR)
            self.thread.join()
            self.thread = None
        super().close()


def engine_socket(path, answers):
    """A container engine's socket that answers the given paths with JSON and everything else with 404."""
    server = Listener(socket.AF_UNIX)
    server.bind(path)
    server.listen(8)

    def serve():
        while True:
            try:
                connection = server.accept()[0]
            except OSError:
                return
            with connection:
                wanted = connection.recv(65536).decode().split(" ")[1]
                body = json.dumps(answers.get(wanted, {"message": "no such thing"})).encode()
                status = b"200 OK" if wanted in answers else b"404 Not Found"
                connection.sendall(b"HTTP/1.0 " + status + b"\r\nContent-Type: application/json\r\n\r\n" + body)
    server.thread = threading.Thread(target=serve, daemon=True)
    server.thread.start()
    return server


ANSWERS = {
    "/version": {"Version": "26.1.4", "ApiVersion": "1.45"}, "/info": {"DockerRootDir": "/var/lib/docker"},
    "/containers/json?all=1": [{"Id": "a", "Names": ["/x"], "State": "running"}, {"Id": "b", "Names": ["/gone"], "State": "running"}],
    "/containers/a/json": {"State": {"Pid": 7}, "HostConfig": {"Devices": [{"PathOnHost": "/dev/davinci3"}]}},
    "/images/json?digests=1": [{"Id": "sha256:1", "RepoTags": ["t:1"], "Size": 5}], "/images/sha256:1/json": {"Architecture": "arm64"},
}


def test_engine_by_its_socket(tmp_path):
    path = str(tmp_path / "socket")
    server = engine_socket(path, ANSWERS)
    raw = {"name": "docker", "path": "/usr/bin/docker", "error": None}
    try:
        survey_sources._by_socket(raw, path)
    finally:
        server.close()
    containers = survey.join_containers(raw["containers"], raw["container_inspects"], None)
    assert [(item["name"], item["pid"], item["devices"]) for item in containers] == [("x", 7, ["/dev/davinci3"]), ("gone", None, [])]
    assert survey.join_images(raw["images"], raw["image_inspects"])[0]["architecture"] == "arm64"


@pytest.mark.parametrize("answers, message", [
    ({}, "answers 404 Not Found to /version"), (dict(ANSWERS, **{"/info": []}), "does not answer with a JSON object")])
def test_engine_that_answers_badly(tmp_path, answers, message):
    path = str(tmp_path / "socket")
    server = engine_socket(path, answers)
    try:
        with pytest.raises((OSError, ValueError), match=message):
            survey_sources._by_socket({}, path)
    finally:
        server.close()


def test_podman_by_its_command(tmp_path):
    answers = {
        "info": {"version": {"Version": "4.9.3", "APIVersion": "4.9.3"}, "store": {"graphRoot": "/var/lib/containers/storage"}},
        "ps": [{"Id": "a", "Names": ["x"], "State": "running"}], "images": [{"Id": "1", "Names": ["t:1"], "Size": 5}],
        "container": [{"Id": "a", "State": {"Pid": 7}, "HostConfig": {"Devices": [{"PathOnHost": "/dev/davinci3"}]}}],
        "image": [{"Id": "1", "Architecture": "arm64"}],
    }
    for name, answer in answers.items():
        (tmp_path / name).write_text(json.dumps(answer))
    raw = {"name": "podman", "path": script(tmp_path / "podman", 'cat "%s/$1"\n' % tmp_path), "error": None}
    survey_sources._podman(raw)
    engine = survey.join_engine(raw)
    assert (engine["version"], engine["data_root"]) == ("4.9.3", "/var/lib/containers/storage")
    assert survey.join_containers(raw["containers"], raw["container_inspects"], None)[0]["devices"] == ["/dev/davinci3"]
    assert survey.join_images(raw["images"], raw["image_inspects"])[0]["architecture"] == "arm64"
    failing = script(tmp_path / "failing", "echo 'cannot open the database' >&2; exit 125\n")
    with pytest.raises(OSError, match="podman info: cannot open the database"):
        survey_sources._podman({"path": failing})


def test_deep_sources(tmp_path):
    fixture = os.path.abspath(os.path.join(FIXTURES, "06-910B3-2npu-processes.txt"))
    tool = script(tmp_path / "npu-smi", (
        'case "$*" in\n"info") cat "%s" ;;\n'
        '"info -m") printf "NPU ID  Chip ID  Chip Logic ID  Chip Name\\n0 0 0 Ascend 910B3\\n5 0 1 Ascend 910B3\\n" ;;\n'
        '"info -t health -i 5") printf "\\tNPU ID : 5\\n\\tChip Count : 1\\n\\n\\tChip ID : 0\\n\\tHealth : OK\\n" ;;\n'
        '*) echo "Error parameter of -t"; exit 1 ;;\nesac\n') % fixture)
    deep = surveyed(npu_smi_path=tool, deep=True)["deep"]
    assert [chip["logic_id"] for chip in deep["mapping"]["chips"]] == [0, 1]
    assert deep["npus"]["5"]["health"]["chips"][0]["values"] == {"Health": "OK"}
    assert deep["npus"]["0"]["ecc"]["kind"] == "invalid-parameter"


def test_deep_sources_end_at_their_deadline(tmp_path):
    fixture = os.path.abspath(os.path.join(FIXTURES, "06-910B3-2npu-processes.txt"))
    tool = script(tmp_path / "npu-smi", 'if [ "$*" = info ]; then cat "%s"; else sleep 300; fi\n' % fixture)
    result = surveyed(npu_smi_path=tool, deep=True, timeout_s=5)
    assert len(result["chips"]) == 2 and result["deep"]["mapping"] is None
    assert {"source": "npu-smi info -m", "error": "no answer within its deadline"} in result["errors"]
    assert any(entry["source"] == "deep" and "had no time left, from npu-smi info -t board -i 0 on" in entry["error"] for entry in result["errors"])


def test_tool_that_closes_its_output_and_goes_on(tmp_path):
    tool = script(tmp_path / "tool", "exec >&- 2>&-\nexec sleep 300\n")
    result = survey_sources.run_tool([tool], 0.5)
    assert result.timed_out and result.rc in (None, -signal.SIGKILL)


def test_command_lines_lose_what_may_be_secret():
    arguments = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)", "--api-key", "s3cret"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            # A wrapper of the interpreter may show its bare name.
            assert os.path.basename(survey_sources._process(process.pid)["command"]) == os.path.basename(sys.executable)
        finally:
            process.kill()
