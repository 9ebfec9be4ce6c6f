# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An operator's day on the rehearsal fleet: from hosts that only answer SSH to models that answer, and back."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.request

import pytest
from fleet_operator import ADDRESSES, BIN, ROOT, module, on, play, run

DEPLOY = "deploy_gemma4.yml"
MODELS = {"gemma-4-E2B-it": 1, "gemma-4-E4B-it": 1, "gemma-4-26B-A4B-it": 2, "gemma-4-31B-it": 4}
HOSTS = {host: ADDRESSES[host] for host in ("a2-1", "a3-1")}
NOBODY = ADDRESSES["a2-1"].rpartition(".")[0] + ".250"
SHORTER = json.dumps({"fleet_models": {"gemma-4-E2B-it": {"arguments": {"max-model-len": 4096}}}})
FAULTS = "/usr/local/Ascend/driver/lib64/rehearsal_faults"
KEY = "sk-planted-secret-0123456789"


def extra(**variables):
    return "-e", json.dumps(variables)


def ask(address, port, model, key=None):
    """The answer of an instance to one question."""
    body = {"model": model, "messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 32, "temperature": 0}
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = "Bearer " + key
    request = urllib.request.Request(f"http://{address}:{port}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


def served(address, port):
    with urllib.request.urlopen(f"http://{address}:{port}/v1/models", timeout=20) as answer:
        return json.load(answer)["data"][0]


def test_it_begins_with_nothing_of_ours():
    play("playbooks/remove.yml").succeeded()
    for host in HOSTS:
        assert "vllm-ascend" not in on(host, "ls /etc/systemd/system /var/lib /etc; docker ps --all; docker images")


def test_check_mode_tells_and_changes_nothing():
    done = play(DEPLOY, "--check", "--diff").succeeded()
    assert "would" in done.output
    for host in HOSTS:
        assert "vllm-ascend" not in on(host, "ls /etc/systemd/system /var/lib /etc; docker ps --all")


def test_the_four_models_answer_on_a2_and_a3():
    done = play(DEPLOY).succeeded()
    for host, address in HOSTS.items():
        for index, model in enumerate(sorted(MODELS, key=lambda name: (MODELS[name], name != "gemma-4-E2B-it"))):
            assert served(address, 8000 + index)["id"] == model
            assert "Paris" in ask(address, 8000 + index, model)
    assert done.changed.get("duo-1", 0) == 0


def test_the_printed_curl_lines_work_when_pasted():
    done = play(DEPLOY, "--limit", "a2-1").succeeded()
    lines = [line for line in done.output.splitlines() if line.startswith("curl ")]
    assert len(lines) == len(MODELS)
    for line in lines:
        answer = subprocess.run(["bash", "-c", line], stdout=subprocess.PIPE, text=True, timeout=30, check=True).stdout
        assert "Paris" in answer


def test_a_second_run_changes_nothing():
    play(DEPLOY).succeeded()
    done = play(DEPLOY).succeeded()
    assert set(done.changed.values()) == {0}, done.output[-3000:]


def test_the_installed_collection_does_the_same(tmp_path):
    run([BIN / "ansible-galaxy", "collection", "build", "--output-path", tmp_path, ROOT]).succeeded()
    # Outside the checkout, so that its links and its ansible.cfg do not help.
    run([BIN / "ansible-galaxy", "collection", "install", "--no-deps", *tmp_path.glob("*.tar.gz"), "-p", tmp_path], cwd=tmp_path).succeeded()
    (tmp_path / "empty.cfg").touch()
    done = play("vllm_ascend.fleet.deploy_gemma4", cwd=tmp_path, ANSIBLE_CONFIG=str(tmp_path / "empty.cfg"),
                ANSIBLE_COLLECTIONS_PATH=str(tmp_path)).succeeded()
    assert set(done.changed.values()) == {0}, done.output[-3000:]


def test_each_npu_is_held_by_one_container_and_none_is_privileged():
    for host in HOSTS:
        names = on(host, "docker ps --quiet").split()
        assert len(names) == len(MODELS)
        inspected = json.loads(on(host, "docker inspect " + " ".join(names)))
        devices = [d["PathOnHost"] for c in inspected for d in c["HostConfig"]["Devices"] if d["PathOnHost"][-1].isdigit()]
        assert len(devices) == len(set(devices)) == sum(MODELS.values())
        assert not any(c["HostConfig"]["Privileged"] for c in inspected)
        assert all(not mount["RW"] for c in inspected for mount in c["Mounts"])


def test_units_are_well_formed_and_start_at_boot():
    for host in HOSTS:
        units = on(host, "ls /etc/systemd/system | grep '^vllm-ascend-.*service$'").split()
        assert len(units) == len(MODELS)
        assert on(host, "systemd-analyze verify " + " ".join(f"/etc/systemd/system/{unit}" for unit in units)).strip() == ""
        assert on(host, "systemctl is-enabled " + " ".join(units)).split() == ["enabled"] * len(MODELS)


def test_status_says_what_runs():
    done = play("playbooks/status.yml").succeeded()
    for model in MODELS:
        assert model in done.output
    assert set(done.changed.values()) == {0}


def test_a_changed_argument_restarts_one_instance_and_rollback_brings_it_back():
    before = on("a2-1", "docker ps --no-trunc --format '{{.Names}} {{.ID}}'").split("\n")
    done = play(DEPLOY, "--limit", "a2-1", "-e", SHORTER).succeeded()
    assert done.changed == {"a2-1": 1}
    assert served(HOSTS["a2-1"], 8000)["max_model_len"] == 4096
    after = on("a2-1", "docker ps --no-trunc --format '{{.Names}} {{.ID}}'").split("\n")
    assert len(set(before) & set(after)) == len(before) - 1, "the other instances were not touched"
    play("playbooks/rollback.yml", "--limit", "a2-1").succeeded()
    assert served(HOSTS["a2-1"], 8000)["max_model_len"] == 131072
    assert play("playbooks/rollback.yml", "--limit", "a2-1").succeeded().changed.get("a2-1", 0) == 0, "a second rollback goes nowhere"


def broken_release(*levers, **override):
    """Extra variables of a release of E2B that alone meets the levers: it reads them from a folder of its own."""
    on("a2-1", "rm -rf /etc/rehearsal/faults/new; mkdir -p /etc/rehearsal/faults/new/")
    for lever in levers:
        on("a2-1", f"printf 1 > /etc/rehearsal/faults/new/{lever}")
    changes = {"arguments": {"max-model-len": 2048}, "environment": {"REHEARSAL_FAULTS": f"{FAULTS}/new"}, **override}
    return extra(fleet_models={"gemma-4-E2B-it": changes})


@pytest.mark.parametrize("lever, words", [
    ("engine_crash_loop", ["endpoint.restarts_steady"]),
    ("engine_never_ready", ["endpoint.listener_ours", "phase weights"]),
    ("wrong_model_answers", ["endpoint.model"]),
    ("engine_nonsense", ["endpoint.sane"]),
    ("health_only", ["endpoint.completion"]),
])
def test_a_release_that_is_not_proven_goes_back_to_the_one_before(lever, words):
    done = play(DEPLOY, "--limit", "a2-1", *broken_release(lever, ready_timeout_s=12), "-e", "prove_first_token_s=5").refused("gemma-4-e2b-it", *words)
    assert re.search(r"a2-1 +gemma-4-E2B-it .* reverted", done.output), done.output[-3000:]
    assert served(HOSTS["a2-1"], 8000)["max_model_len"] == 131072
    assert "Paris" in ask(HOSTS["a2-1"], 8000, "gemma-4-E2B-it")


def test_when_the_release_before_fails_too_the_host_is_down_and_said_so(fault):
    fault("a2-1", "engine_crash_loop.gemma-4-E2B-it", "1")
    done = play(DEPLOY, "--limit", "a2-1", *broken_release("engine_crash_loop")).refused("down", "gemma-4-e2b-it")
    assert re.search(r"a2-1 +gemma-4-E2B-it .* down", done.output), done.output[-3000:]
    on("a2-1", "rm /etc/rehearsal/faults/engine_crash_loop.gemma-4-E2B-it")
    play(DEPLOY, "--limit", "a2-1").succeeded()
    assert "Paris" in ask(HOSTS["a2-1"], 8000, "gemma-4-E2B-it")


@pytest.mark.parametrize("host, lever, value, words", [
    ("a2-1", "npu_smi_hang", "", ["npu.smi", "a2-1"]),
    ("a2-1", "npu_smi_garbage", "", ["npu.smi", "a2-1"]),
    ("a3-1", "chip_alarm", "3", ["npu.chip_healthy", "Alarm"]),
])
def test_a_sick_host_stops_the_run_before_any_change(fault, host, lever, value, words):
    fault(host, lever, value)
    done = play(DEPLOY, "-e", SHORTER, *extra(fleet_npu_smi_timeout_s=6)).refused(*words)
    assert "changed=1" not in done.output
    assert served(HOSTS["a2-1"], 8000)["max_model_len"] == 131072


def test_an_image_comes_from_another_mirror_when_one_lies():
    name = "ascend/vllm-ascend:v0.18.0rc1-310p"
    wanted = {"reference": f"quay.io/{name}", "mirrors": [f"quay.nju.edu.cn/{name}", f"m.daocloud.io/quay.io/{name}", f"quay.io/{name}"]}
    lever = ("playbooks/rehearse_fault.yml", "-e", "host=registry", "-e", "fault=mirror_lying")
    play(*lever, "-e", "value=quay.nju.edu.cn").succeeded()
    try:
        done = module("a2-1", "vllm_ascend.fleet.image", wanted).succeeded()
    finally:
        play(*lever, "-e", "clear=true").succeeded()
    assert "mirror put aside: quay.nju.edu.cn" in done.output, "the liar is named"
    assert "quay.nju.edu.cn" not in on("a2-1", "docker images --digests")
    on("a2-1", "docker images --digests --format '{{.Repository}}@{{.Digest}}' | grep -v registry.rehearsal | xargs -r docker rmi")


@pytest.mark.parametrize("variables, words", [
    ({"fleet_instances": ["gemma-4-E2-it"]}, ["unknown model 'gemma-4-E2-it'", "did you mean 'gemma-4-E2B-it'"]),
    ({"fleet_instancs": []}, ["unknown variable 'fleet_instancs'", "did you mean 'fleet_instances'"]),
    ({"fleet_patch_directory": "/nonexistent"}, ["/nonexistent/0001-Add-Gemma4-support-in-vllm.patch"]),
    ({"fleet_instances": [{"model": "gemma-4-E2B-it", "devices": [7]}, {"model": "gemma-4-E4B-it", "devices": [7]}]}, ["/dev/davinci7"]),
    ({"fleet_instances": [{"model": "gemma-4-E2B-it", "port": 1}, {"model": "gemma-4-E4B-it", "port": 1}]}, ["the same port 1"]),
    ({"fleet_instances": ["gemma-4-31B-it", {"model": "gemma-4-31B-it", "name": "b"}, {"model": "gemma-4-31B-it", "name": "c"}]},
     ["placement", "a2-1"]),
    ({"fleet_models": {"gemma-4-E2B-it": {"arguments": {"max-modle-len": 1}}}}, ["did you mean 'max-model-len'"]),
    ({"ansible_python_interpreter": "/opt/no/python3"}, ["host.reachable", "/opt/no/python3", "ansible_python_interpreter"]),
    ({"ansible_host": NOBODY, "ansible_ssh_timeout": 2}, ["host.reachable", NOBODY]),
])
def test_bad_input_is_a_clear_error_before_any_host_is_changed(variables, words):
    done = play(DEPLOY, "--limit", "a2-1", *extra(**variables)).refused(*words)
    assert "changed=1" not in done.output


def test_a_patch_with_a_wrong_checksum_is_refused(tmp_path):
    source = ROOT / "roles" / "rehearsal_fleet" / "files" / "patches"
    for path in source.glob("*.patch"):
        (tmp_path / path.name).write_bytes(path.read_bytes() + b"\n")
    play(DEPLOY, "--limit", "a2-1", *extra(fleet_patch_directory=str(tmp_path))).refused("sha256", "0001-Add-Gemma4-support-in-vllm.patch")


def test_a_missing_inventory_is_an_error():
    play(DEPLOY, inventory=ROOT / "inventories" / "none.yml").refused("-i prod")
    play(DEPLOY, inventory="inventories/no-such").refused("no-such")


def test_an_api_key_is_asked_for_and_never_shown():
    done = play(DEPLOY, "--limit", "a2-1", "--diff", "-vv", *extra(fleet_api_key=KEY)).succeeded()
    assert KEY not in done.output
    address = HOSTS["a2-1"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(address, 8000, "gemma-4-E2B-it")
    assert "Paris" in ask(address, 8000, "gemma-4-E2B-it", KEY)
    assert KEY not in on("a2-1", "ps -eww -o args; journalctl --no-pager; cat /etc/systemd/system/vllm-ascend-*")
    found = on("a2-1", f"grep -rlF {KEY} /etc /var/lib/vllm-ascend-fleet /root /tmp; true").split()
    assert found and all(path.startswith("/etc/vllm-ascend-fleet/") for path in found)
    assert {line.split()[0] for line in on("a2-1", "stat -c '%a %U' " + " ".join(found)).splitlines()} == {"600"}
    for path in (ROOT / "reports").rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


def test_the_300i_duo_serves_its_own_model():
    play("playbooks/deploy.yml", "--limit", "duo-1").succeeded()
    assert served(ADDRESSES["duo-1"], 8000)["id"] == "qwen3-0.6b"
    assert play("playbooks/deploy.yml", "--limit", "duo-1").succeeded().changed["duo-1"] == 0


def test_remove_leaves_nothing_of_ours_and_touches_nothing_else():
    on("a2-1", "docker run --detach --name somebody-elses --network none $(docker images --quiet | head -1) sleep 600")
    try:
        play("playbooks/remove.yml").succeeded()
        assert "somebody-elses" in on("a2-1", "docker ps")
        assert on("a2-1", "docker images --quiet").strip(), "an image that somebody uses stays"
        for host in (*HOSTS, "duo-1"):
            left = on(host, "ls /etc/systemd/system /var/lib /etc; docker ps --all --format '{{.Names}}'")
            assert "vllm-ascend" not in left
    finally:
        on("a2-1", "docker rm --force somebody-elses", check=False)
    play("playbooks/remove.yml").succeeded()
    assert set(play("playbooks/remove.yml").succeeded().changed.values()) == {0}
