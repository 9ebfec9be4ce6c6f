# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts under load: forward, back, broken in three ways, cut off, paused and contested. No client sees any of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from fleet_operator import BIN, INVENTORY, ROOT, described, on, play, using
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.load import Load

UPGRADE, MODEL, INSTANCE = "playbooks/upgrade.yml", "gemma-4-E2B-it", "gemma-4-e2b-it"
HOSTS = [f"a2-{number}" for number in range(1, 7)]
FAULTS = "/usr/local/Ascend/driver/lib64/rehearsal_faults/new"
REPORTS = ROOT / "reports" / "rollout"


def wants(length, environment=None, **rollout):
    """Extra variables: another maximum length, and what else a release brings."""
    policy = dict({"batches": [1, 2], "max_unavailable_per_rack": 1, "canary_window_s": 3}, **rollout)
    return "-e", json.dumps({"fleet_rollout": policy, "fleet_models": {MODEL: {"arguments": {"max-model-len": length}, "environment": environment or {}}}})


def serves(host):
    """The maximum length that a host serves, asked there: only the gateways reach it from outside. None when nobody answers."""
    answer = on(host, "curl --silent --max-time 5 http://127.0.0.1:8000/v1/models", check=False)
    return json.loads(answer)["data"][0]["max_model_len"] if answer.startswith("{") else None


def runs():
    """{host: the maximum length that it serves}."""
    return {host: serves(host) for host in HOSTS}


def journal():
    """The folder and the events of the latest rollout."""
    path = sorted(REPORTS.glob("*/journal.jsonl"), key=lambda each: each.stat().st_mtime)[-1]
    return path.parent, [json.loads(line) for line in path.read_text().splitlines()]


def restarts(since):
    """{host: how often the instance was started since a time of the hosts' clock}."""
    return {host: int(on(host, f"journalctl --unit vllm-ascend-{INSTANCE} --since @{since} --output cat | grep -c '^Started ' || true")) for host in HOSTS}


@pytest.fixture
def load():
    """Streamed and plain requests to the gateway all the while; none may fail."""
    with Load(f"http://{described()[0]['gw-1']}:9000", MODEL, rate=5) as clients:
        time.sleep(1)
        yield clients
    told = clients.report()
    assert told["failed"] == 0 and told["requests"] > 20, clients.told()


def begun(*arguments):
    """An upgrade in the background, in a group of processes of its own."""
    argv = [BIN / "ansible-playbook", UPGRADE, *using(INVENTORY), *arguments]
    base = dict(os.environ, PATH=f"{BIN}:{os.environ['PATH']}", LC_ALL="C.UTF-8", ANSIBLE_NOCOLOR="1", ANSIBLE_FORCE_COLOR="0")
    return subprocess.Popen([str(word) for word in argv], cwd=ROOT, env=base, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, start_new_session=True)


def kill(pid):
    """SIGKILL to a process and all that it started, which newer cores put into sessions of their own."""
    parents = {int(path.parent.name): int(path.read_text().rsplit(")", 1)[1].split()[1]) for path in Path("/proc").glob("[0-9]*/stat") if path.exists()}
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    for member in family:
        os.kill(member, signal.SIGKILL)


def wait_for(done, what, seconds=120):
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, f"{what} did not happen within {seconds} s"
        time.sleep(0.1)


def lines_since(known, event):
    """How many events of a kind the rollout that began after ``known`` has written."""
    fresh = [path for path in REPORTS.glob("*/journal.jsonl") if path.parent.name not in known]
    return sum(f'"event": "{event}"' in line or f'"event":"{event}"' in line for path in fresh for line in path.read_text().splitlines())


def test_an_upgrade_goes_through_all_hosts_and_back(load):
    done = play(UPGRADE, *wants(8192)).succeeded()
    assert set(runs().values()) == {8192}
    folder, events = journal()
    assert events[-1]["event"] == "rollout.end" and events[-1]["evidence"]["outcome"] == "done"
    sizes = [len(event["evidence"]["hosts"]) for event in events if event["event"] == "batch.begin"]
    assert sizes[0] == 1 and sum(sizes) == len(HOSTS) and max(sizes) == 2, done.output[-3000:]
    assert play(UPGRADE, *wants(8192)).succeeded().changed.get("a2-1", 0) == 0
    play("playbooks/rollback.yml", "-e", "rollout=latest").succeeded()
    assert set(runs().values()) == {131072}
    play("playbooks/ledger_verify.yml", "-e", f"ledger_directory={REPORTS}").succeeded()
    assert folder.name in (REPORTS / "ledger.jsonl").read_text()


@pytest.mark.parametrize("lever, value, window, words", [
    ("engine_crash_loop", "1", 3, "endpoint.restarts_steady"), ("engine_nonsense", "1", 3, "endpoint.sane"), ("engine_dies_after_s", "20", 25, "a2-1")])
def test_a_broken_release_goes_back_at_the_canary_and_no_further(load, lever, value, window, words):
    for host in HOSTS:
        on(host, f"rm -rf /etc/rehearsal/faults/new; mkdir -p /etc/rehearsal/faults/new; printf {value} > /etc/rehearsal/faults/new/{lever}")
    since = on("a2-1", "date +%s").strip()
    done = play(UPGRADE, *wants(2048, {"REHEARSAL_FAULTS": FAULTS}, canary_window_s=window)).refused(words)
    assert set(runs().values()) == {131072}, done.output[-3000:]
    assert {host for host, count in restarts(since).items() if count} == {"a2-1"}
    _folder, events = journal()
    assert [event["evidence"]["hosts"] for event in events if event["event"] == "batch.begin"] == [["a2-1"]]
    assert events[-1]["evidence"]["hosts"]["a2-1"] == "reverted"


# EVERY_LINE=1 kills after every line in turn, which takes a quarter of an hour.
@pytest.mark.parametrize("number", range(1, 19) if os.environ.get("EVERY_LINE") else [2, 5, 8, 11])
def test_a_controller_that_is_killed_is_resumed_and_nothing_is_done_twice(load, number):
    """SIGKILL after so many lines of the journal; both hosts get the new release once, whoever brought it there."""
    length, known = 4096 + number, {path.parent.name for path in REPORTS.glob("*/journal.jsonl")}
    what = (*wants(length, batches=[1]), "--limit", ",".join(HOSTS[:2]))
    since = on("a2-1", "date +%s").strip()
    running = begun(*what)
    wait_for(lambda: sum(len(path.read_text().splitlines()) for path in REPORTS.glob("*/journal.jsonl") if path.parent.name not in known) >= number
             or running.poll() is not None, f"line {number} of the journal")
    kill(running.pid)
    running.wait()
    done = play("playbooks/resume.yml", *what).succeeded()
    assert {serves(host) for host in HOSTS[:2]} == {length}, done.output[-3000:]
    assert [restarts(since)[host] for host in HOSTS[:2]] == [1, 1]
    assert journal()[1][-1]["evidence"]["outcome"] == "done"


def test_a_second_controller_a_pause_and_ctrl_c(load):
    known = {path.parent.name for path in REPORTS.glob("*/journal.jsonl")}
    running = begun(*wants(5000))
    wait_for(lambda: lines_since(known, "batch.begin"), "the first batch")
    play(UPGRADE, *wants(5001)).refused("another rollout is under way", "take_over=true")
    play("playbooks/pause.yml").succeeded()
    output = running.communicate(timeout=300)[0]
    assert running.returncode != 0 and "pause was asked for" in output, output[-3000:]
    assert 5000 in runs().values() and len(set(runs().values())) > 1

    running = begun(*wants(5000))
    wait_for(lambda: lines_since(known, "batch.begin") >= 2, "the next batch")
    running.send_signal(signal.SIGINT)
    output = running.communicate(timeout=300)[0]
    assert running.returncode != 0 and "the hosts at work are finished" in output and "Ctrl-C" in output, output[-3000:]
    play("playbooks/resume.yml", *wants(5000)).succeeded()
    assert set(runs().values()) == {5000}


def test_status_tells_drift_and_a_hand_edit_needs_consent():
    unit = f"/etc/systemd/system/vllm-ascend-{INSTANCE}.service"
    on("a2-3", f"sed -i 's/^Description=.*/Description=by hand/' {unit} && systemctl daemon-reload")
    try:
        told = play("playbooks/status.yml").succeeded().output
        assert re.search(r"a2-3 .* files \((both|the host's)\)", told), told[-3000:]
        play(UPGRADE, *wants(5002), "--limit", "a2-3").refused("instance.files_unchanged", "a2-3")
    finally:
        play(
            "playbooks/upgrade.yml", *wants(5000), "-e", json.dumps({"fleet_waivers": [{"rule": "instance.files_unchanged", "reason": "put back"}]})
        ).succeeded()
    assert set(runs().values()) == {5000}


def beginning(length, *arguments, **rollout):
    """A rollout in the background, in the middle of the proof of its canary, which listens with the new length."""
    assert serves(HOSTS[0]) != length
    running = begun(*wants(length, **rollout), *arguments)
    wait_for(lambda: serves(HOSTS[0]) == length or running.poll() is not None, "the canary's new release")
    return running


def test_an_engine_that_restarts_and_a_chip_that_falls_ill_on_the_way(load):
    """The canary's container engine restarts within its proof, and a host that is still to come gets a sick NPU."""
    since = on(HOSTS[0], "date +%s").strip()
    before = runs()
    running = beginning(6000, max_unavailable=3, max_unavailable_per_rack=2, canary_window_s=12)
    try:
        on(HOSTS[0], "systemctl restart docker")
        on(HOSTS[-1], "rehearsal-fault set chip_alarm 0")
        output = running.communicate(timeout=300)[0]
    finally:
        on(HOSTS[-1], "rehearsal-fault clear chip_alarm")
    told = f"{HOSTS[-1]}: /dev/davinci0 health Alarm; it leaves the plan, and goes on serving, as sick_host says"
    assert running.returncode != 0 and told in output and f"left out: {HOSTS[-1]}" in output, output[-3000:]
    assert runs() == dict.fromkeys(HOSTS[:-1], 6000) | {HOSTS[-1]: before[HOSTS[-1]]}
    assert restarts(since) == {HOSTS[0]: 2} | dict.fromkeys(HOSTS[1:-1], 1) | {HOSTS[-1]: 0}
    events = journal()[1]
    proof = [event for event in events if event["step"] == "change" and event["host"] == HOSTS[0] and event["event"] == "step.end"]
    assert proof[0]["ok"] and events[-1]["evidence"]["outcome"] == "held"


def test_a_host_that_reboots_at_its_first_request_goes_back_and_nobody_follows(load):
    """The kernel goes down with the first completion of the new release, as a driver may take it along."""
    before, since = runs(), on(HOSTS[0], "date +%s").strip()
    boot = {host: on(host, "cat /proc/sys/kernel/random/boot_id") for host in HOSTS[:2]}
    script = f"""until journalctl --unit vllm-ascend-{INSTANCE} --since @{since} --output cat | sed -n '/max_model_len.: 6001/,$p' |
    grep -q 'POST /v1/chat/completions'; do sleep 0.2; done; systemctl --force --force reboot"""
    on(HOSTS[0], "cat > /run/reboots && systemd-run --quiet --collect --unit reboots /bin/sh /run/reboots", given=script.encode())
    done = play(UPGRADE, *wants(6001, batches=[1]), "--limit", ",".join(HOSTS[:2])).refused(
        "the host was started anew while it ran", "the release before is back and proven")
    assert runs() == before, done.output[-3000:]
    assert [on(host, "cat /proc/sys/kernel/random/boot_id") == boot[host] for host in HOSTS[:2]] == [False, True]
    assert restarts(since)[HOSTS[1]] == 0
    events = journal()[1]
    assert [event["evidence"]["hosts"] for event in events if event["event"] == "batch.begin"] == [[HOSTS[0]]]
    assert events[-1]["evidence"]["outcome"] == "held" and events[-1]["evidence"]["hosts"] == {HOSTS[0]: "reverted"}
    assert [event["ok"] for event in events if event["event"] == "step.end" and event["step"] == "admit"] == [True], "what is proven again is let in"


def test_a_container_that_somebody_pauses_is_waited_for_and_not_fought(load):
    """MindCluster's container manager pauses what stands on a faulty NPU; its name is all that is simulated of it."""
    since, limit = on(HOSTS[0], "date +%s").strip(), ("--limit", HOSTS[0])
    short = ("-e", json.dumps({"fleet_instance_defaults": {"ready_timeout_s": 20}}))
    on(HOSTS[0], "cp /bin/sleep /usr/local/bin/container-manager; systemd-run --quiet --collect --unit pauser /usr/local/bin/container-manager 600")
    running = beginning(6003, *limit, *short, canary_window_s=12)
    try:
        on(HOSTS[0], f"docker pause vllm-ascend-{INSTANCE}")
        output = running.communicate(timeout=300)[0]
        assert running.returncode != 0 and "paused, probably by the container manager of MindCluster" in output, output[-3000:]
        assert [event["evidence"]["hosts"] for event in journal()[1] if event["event"] == "rollout.end"] == [{HOSTS[0]: "quarantined"}]
        assert on(HOSTS[0], f"docker inspect --format '{{{{.State.Status}}}}' vllm-ascend-{INSTANCE}").strip() == "paused"
    finally:
        on(HOSTS[0], f"docker unpause vllm-ascend-{INSTANCE}; systemctl stop pauser")
    play("playbooks/resume.yml", *wants(6003), *limit, *short).succeeded()
    assert serves(HOSTS[0]) == 6003 and restarts(since)[HOSTS[0]] == 1
