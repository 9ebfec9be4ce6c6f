# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease of rollouts as one of its anchors keeps it. This file does I/O; ``lease`` decides."""

from __future__ import annotations

import fcntl
import json
import os
import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import change, job_host, lease

NAME = "rollout.json"


def answer(arguments):
    """Ask or change the lease of this host.

    :param dict arguments: "directory": the state directory; "act": "look", "take", "release" or "request"; for the others "epoch" and "owner"; for take
        "seconds", "rollout", "plan", "take_over"; for request "request" (pause, abort or None).
    :returns: {"given": bool, "reason": words or None, "held": the lease afterwards, "now": this host's clock}.
    """
    directory, act = arguments["directory"], arguments["act"]
    path = os.path.join(directory, NAME)
    if act == "look":
        return {"given": True, "reason": None, "held": change.read_state(job_host.read_text(path)), "now": time.time()}
    os.makedirs(directory, mode=0o755, exist_ok=True)
    with open(os.path.join(directory, ".rollout.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held, now = change.read_state(job_host.read_text(path)), time.time()
        given, reason, after = decide(held, arguments, now)
        if given and after != held:
            job_host.write_text(path, json.dumps(after, indent=1, sort_keys=True) + "\n")
    return {"given": given, "reason": reason, "held": after, "now": now}


def decide(held, arguments, now):
    """(given, reason, the lease afterwards)."""
    act = arguments["act"]
    if act == "request":
        return True, None, dict(held, request=arguments["request"])
    if act == "release":
        if not lease.same_owner(held.get("owner"), arguments["owner"]) or held.get("epoch") != arguments["epoch"]:
            return False, "the lease is not ours any more", held
        return True, None, dict(held, released=True, expires=now, request=None)
    given, reason = lease.decide(held, arguments, now)
    if not given:
        return False, reason, held
    same = lease.same_owner(held.get("owner"), arguments["owner"]) and held.get("epoch") == arguments["epoch"]
    return True, arguments.get("take_over") or reason, {
        "epoch": arguments["epoch"], "owner": arguments["owner"], "expires": now + arguments["seconds"], "released": False,
        "rollout": arguments["rollout"], "plan": arguments["plan"], "since": held.get("since", now) if same else now,
        # A wish that was uttered while nobody ran a rollout is not meant for this one.
        "request": held.get("request") if same else None}
