# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits on a host until its instances have nothing to do. This file does I/O; ``drain`` decides."""

from __future__ import annotations

import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import change, container_cli, drain, endpoint_probes, host_change, job_host
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import release, release_host, vllm_metrics

POLL_S = 0.2
ASK_S = 5.0


def answer(arguments):
    """Wait until every instance is idle for a window, or the deadline has passed.

    :param dict arguments: "instances": [{"instance", "port"}], "deadline_s", "window_s"; "note": what the host is to remember, see change; "params" as of
        host_change.
    :returns: {"instances": {name: of drain.judge}, "elapsed_s"}.
    """
    params = host_change.host_params({"state": "absent", "params": arguments.get("params")})
    note = arguments.get("note")
    if note:
        state = change.read_state(job_host.read_text(host_change.state_path(params)))
        change.check_fence(state, note if "epoch" in note else None)
        if state.get("state") not in change.UNFINISHED:
            host_change.remember(params, **note)
    address = arguments.get("address", "127.0.0.1")
    started = time.monotonic()
    waits = dict((each["instance"], drain.Wait(arguments["window_s"], started)) for each in arguments["instances"])
    ports = dict((each["instance"], each["port"]) for each in arguments["instances"])
    while True:
        for name, wait in waits.items():
            if not wait.over:
                status, text = endpoint_probes.ask(address, ports[name], "/metrics", seconds=ASK_S)
                silent = status is None
                gone = silent and stopped(params, name)
                wait.see(vllm_metrics.load(status, text), time.monotonic(), gone, paused(params, name) if silent and not gone else None)
        if all(wait.over for wait in waits.values()) or time.monotonic() - started >= arguments["deadline_s"]:
            break
        time.sleep(POLL_S)
    return {"instances": dict((name, wait.verdict()) for name, wait in waits.items()), "elapsed_s": round(time.monotonic() - started, 3)}


def stopped(params, name):
    """Whether systemd says that an instance does not run, so that it has nothing to do either."""
    entries = release.normalise([{"name": name}], "absent", {})
    return not release.is_running({"systemd": release_host.Host(params).units(entries)[entries[0]["unit"]]})


def paused(params, name):
    """By whom an instance is paused, None when it is not or nobody can tell."""
    try:
        return release_host.paused(release_host.Host(params), release.normalise([{"name": name}], "absent", {}))
    except (release.ReleaseError, container_cli.CommandError):
        return None
