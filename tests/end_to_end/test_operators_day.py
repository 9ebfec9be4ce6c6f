# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host from its inventory's list: plan, restart, stop, start, logs, evidence, an instance that leaves; and no secret anywhere."""

from __future__ import annotations

import json
import re
import tarfile

import pytest
from fleet_operator import ROOT, STATE, on, play

DEPLOY, HOST = "playbooks/deploy.yml", "a2-1"
SMALL, OTHER = "gemma-4-e2b-it", "gemma-4-e4b-it"
KEY = "sk-planted-secret-9876543210"


def wants(*models, **variables):
    return "--limit", HOST, "-e", json.dumps(dict(variables, fleet_instances=list(models), fleet_api_key=KEY))


BOTH = wants("gemma-4-E2B-it", "gemma-4-E4B-it")
ONE = wants("gemma-4-E2B-it")


@pytest.fixture(scope="module", autouse=True)
def deployed(fleet):
    """Two instances on the host; nothing of ours there afterwards."""
    play("playbooks/remove.yml", "--limit", HOST).succeeded()
    yield play(DEPLOY, *BOTH).succeeded()
    play("playbooks/remove.yml", "--limit", HOST).succeeded()


def started():
    """When each unit became active, by instance."""
    shown = on(HOST, f"systemctl show --property=ActiveState,ActiveEnterTimestampMonotonic --value vllm-ascend-{SMALL} vllm-ascend-{OTHER}")
    return [tuple(block.split()) for block in shown.strip().split("\n\n")]


def test_the_first_proof_asked_everything_that_the_models_declare(deployed):
    folder = sorted((ROOT / "reports").glob("*/run.json"), key=lambda path: path.stat().st_mtime)[-1]
    for proof in json.loads(folder.read_text())["hosts"][HOST]["proven"].values():
        rules = {item["rule"]: item for item in proof["findings"]}
        assert {"endpoint.tool_call", "endpoint.reasoning", "endpoint.chips"} <= set(rules)
        assert "get_weather" in rules["endpoint.tool_call"]["found"] and "/dev/davinci" in rules["endpoint.chips"]["found"]


def test_the_plan_names_each_layer_and_shows_what_would_change():
    done = play("playbooks/plan.yml", *wants("gemma-4-E2B-it", {"model": "gemma-4-E4B-it", "arguments": {"max-model-len": 4096}})).succeeded()
    assert re.search(r"--max-model-len +extra variables: fleet_instances +4096", done.output)
    assert re.search(r"ready_timeout_s +group_vars of npu_nodes: fleet_instance_defaults +60", done.output)
    assert [line for line in done.output.splitlines() if re.match(r"  [+-] ", line)] == ["  +    --max-model-len 4096"]
    assert KEY not in done.output


def test_restart_changes_when_it_runs_and_proves():
    before = started()
    done = play("playbooks/restart.yml", *ONE, "-e", "model=" + SMALL).succeeded()
    after = started()
    assert done.changed[HOST] == 1 and after[0] != before[0] and after[1] == before[1]
    assert {state for state, _since in after} == {"active"}


def test_restart_in_check_mode_restarts_nothing():
    before = started()
    done = play("playbooks/restart.yml", *ONE, "--check", "--diff").succeeded()
    assert done.changed[HOST] > 0 and started() == before


def test_stop_and_start_are_idempotent():
    assert play("playbooks/stop.yml", *ONE, "-e", "model=" + SMALL).succeeded().changed[HOST] == 1
    assert [state for state, _since in started()] == ["inactive", "active"]
    assert play("playbooks/stop.yml", *ONE, "-e", "model=" + SMALL).succeeded().changed[HOST] == 0
    assert play("playbooks/start.yml", *ONE).succeeded().changed[HOST] == 1
    assert play("playbooks/start.yml", *ONE).succeeded().changed[HOST] == 0
    assert {state for state, _since in started()} == {"active"}


def test_a_patched_file_that_somebody_changes_is_named_and_a_restart_makes_it_right():
    file = "/vllm-workspace/vllm/vllm/tool_parsers/__init__.py"
    on(HOST, f"docker exec vllm-ascend-{SMALL} sh -c 'echo >> {file}'")
    play("playbooks/verify.yml", *ONE).refused(SMALL, "endpoint.attested", f"{file} was changed", "playbooks/restart.yml")
    assert "patched files (the host's)" in play("playbooks/status.yml", *ONE).succeeded().output
    assert play("playbooks/restart.yml", *ONE, "-e", "model=" + SMALL).succeeded().changed[HOST] == 1


def test_what_the_engines_own_parser_refuses_stops_nothing():
    before = started()
    wrong = {"model": "gemma-4-E2B-it", "arguments": {"compilation-config": {"cudagraph_mode": "NONSENSE"}}}
    play(DEPLOY, *wants(wrong)).refused("Invalid cudagraph_mode: NONSENSE", SMALL, "nothing was stopped")
    assert started() == before


def test_a_name_that_nobody_knows_is_refused():
    play("playbooks/restart.yml", *ONE, "-e", "model=gemma-4-E2B").refused("gemma-4-E2B", SMALL, OTHER)


def test_units_are_confined():
    shown = on(HOST, f"systemd-analyze security --no-pager vllm-ascend-{SMALL}.service")
    level = float(re.search(r"Overall exposure level for \S+ ([0-9.]+)", shown.replace(":", "")).group(1))
    assert level <= 3.0, shown[-400:]


def test_logs_and_evidence_are_there(deployed):
    done = play("playbooks/logs.yml", *ONE, "-e", "lines=300").succeeded()
    assert f"{HOST}: {SMALL}" in done.output and "Application startup complete" in done.output and done.changed[HOST] == 0
    done = play("playbooks/diagnose.yml", *ONE).succeeded()
    with tarfile.open(re.search(r"/\S+/%s\.tar\.gz" % HOST, done.output).group(0)) as archive:
        texts = {entry.name: archive.extractfile(entry).read().decode() for entry in archive}
    assert {f"{HOST}/survey.json", f"{HOST}/npu-smi.txt", f"{HOST}/{SMALL}/unit.txt", f"{HOST}/{SMALL}/container.json"} <= set(texts)
    assert "vllm serve" in texts[f"{HOST}/{SMALL}/unit.txt"] and json.loads(texts[f"{HOST}/{SMALL}/container.json"])


def test_no_secret_is_told_anywhere(deployed):
    password = (STATE / "fleet_registry_password").read_text().strip()
    outputs = [deployed.output, play(DEPLOY, *BOTH, "-vvv").succeeded().output]
    outputs += [play(f"playbooks/{name}.yml", *BOTH, "-vvv").succeeded().output for name in ("plan", "logs", "diagnose")]
    with tarfile.open(re.findall(r"/\S+/%s\.tar\.gz" % HOST, outputs[-1])[-1]) as archive:
        outputs += [archive.extractfile(entry).read().decode() for entry in archive]
    for secret in (KEY, password):
        assert all(secret not in text for text in outputs)
        # One file each may hold it: the instance's own secret. The shell that looks must not find itself.
        pattern = "[%s]%s" % (secret[0], secret[1:])
        assert on(HOST, f"journalctl --no-pager | grep -c -- '{pattern}'", check=False).strip() == "0"
        assert on(HOST, f"cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c -- '{pattern}'", check=False).strip() == "0"
        found = on(HOST, f"grep -rl -- '{pattern}' /etc /var/lib/vllm-ascend-fleet /root /tmp", check=False).split()
        allowed = [f"/etc/vllm-ascend-fleet/{name}.secret" for name in (SMALL, OTHER)] if secret == KEY else []
        assert sorted(found) == allowed, found
    assert on(HOST, "stat -c '%a %U' /etc/vllm-ascend-fleet/*.secret").split() == ["600", "root"] * 2


def test_what_left_the_inventory_is_named_and_goes_only_when_asked():
    assert f"{HOST}: left the inventory: {OTHER}" in play("playbooks/plan.yml", *ONE).succeeded().output
    done = play(DEPLOY, *ONE).succeeded()
    assert f"left the inventory: {OTHER}" in done.output and done.changed[HOST] == 0
    check = play(DEPLOY, *ONE, "-e", "prune=true", "--check", "--diff").succeeded()
    assert check.changed[HOST] == 1 and f"would stop and remove {OTHER}, which left the inventory" in check.output
    assert OTHER in on(HOST, "docker ps")
    assert play(DEPLOY, *ONE, "-e", "prune=true").succeeded().changed[HOST] == 1
    assert OTHER not in on(HOST, "docker ps --all; ls /etc/systemd/system /var/lib/vllm-ascend-fleet/instances /etc/vllm-ascend-fleet")
    assert SMALL in on(HOST, "docker ps")
    assert play(DEPLOY, *ONE, "-e", "prune=true").succeeded().changed[HOST] == 0


def test_what_is_new_may_take_the_place_of_what_left():
    """The new instance wants the port and the NPU of the one that left."""
    device = json.loads(on(HOST, f"cat /var/lib/vllm-ascend-fleet/instances/{SMALL}/current/manifest.json"))["devices"][0]
    other = wants({"model": "gemma-4-E4B-it", "devices": [int(device[len("/dev/davinci"):])], "port": 8000})
    play(DEPLOY, *other).refused("npu.chip_free", "instance.port_free", f"left the inventory: {SMALL}")
    assert SMALL in on(HOST, "docker ps")
    play(DEPLOY, *other, "-e", "prune=true").succeeded()
    names = on(HOST, "docker ps --format '{{.Names}}'")
    assert OTHER in names and SMALL not in names
    assert play(DEPLOY, *other, "-e", "prune=true").succeeded().changed[HOST] == 0
