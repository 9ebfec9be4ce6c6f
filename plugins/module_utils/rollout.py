# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout: which hosts change in which order, whether the next ones may, and what a journal tells of one that was cut off. Pure."""

from __future__ import annotations

import hashlib
import json
import math

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import endpoint, spanning
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import did_you_mean

# name -> (types, default): the keys of fleet_rollout; docs/rollouts.md explains each.
POLICY = {
    "batches": ((list,), [1, "25%"]),
    "max_unavailable": ((int, str, type(None)), None),
    "max_unavailable_per_rack": ((int, type(None)), None),
    "min_ready": ((int, dict), 1),
    "max_load": ((float, int), 0.8),
    "max_kv_usage": ((float, int), 0.9),
    "canary_window_s": ((int, float), 30),
    "soak_s": ((int, float), 0),
    "on_failure": ((str,), "hold"),
    "drain_deadline_s": ((int, float), 600),
    "drain_at_deadline": ((str,), "cut"),
    "drain_window_s": ((int, float), 1),
    "sick_host": ((str,), "serve"),
    "anchors": ((list,), []),
    "performance": ((dict, type(None)), None),
}
# name -> (types, default): the keys of fleet_rollout.performance.
PERFORMANCE = {
    "suite": ((str,), None),
    "workloads": ((list,), []),
    "concurrency": ((list,), []),
    "repeats": ((int,), 5),
    "minimum_effect": ((float,), 0.05),
    "confidence": ((float,), 0.95),
}
PERFORMANCE_DEFAULTS = dict((name, default) for name, (dummy, default) in PERFORMANCE.items())
CHOICES = {"on_failure": ("hold", "revert"), "drain_at_deadline": ("cut", "wait", "fail"), "sick_host": ("serve", "drain")}
# vLLM 0.18.0 without --max-num-seqs, on a server with little more memory than an NPU has.
DEFAULT_MAX_NUM_SEQS = 256
OUTCOMES = ("done", "held", "reverted", "degraded")
# How a host can end in a rollout; everything else is on its way.
ENDED = ("done", "unchanged", "reverted", "down", "failed", "quarantined", "unreachable", "left out")


def policy(given):
    """A rollout's policy with defaults filled. :returns: (policy, [one-line problem])."""
    problems, result = [], {}
    for name in sorted(given):
        if name not in POLICY:
            problems.append("fleet_rollout: unknown key '%s'%s" % (name, did_you_mean(name, POLICY)))
    for name, (types, default) in POLICY.items():
        value = given.get(name, default)
        if not isinstance(value, types) or isinstance(value, bool):
            problems.append("fleet_rollout: %s must be %s, not %r" % (name, " or ".join(t.__name__ for t in types), value))
            value = default
        if name in CHOICES and value not in CHOICES[name]:
            problems.append("fleet_rollout: %s must be one of %s, not '%s'" % (name, ", ".join(CHOICES[name]), value))
            value = default
        result[name] = value
    for name, value in [("batches", each) for each in result["batches"]] + [("max_unavailable", result["max_unavailable"])]:
        if value is not None and share(value, 100) is None:
            problems.append("fleet_rollout: %s has %r, which is neither a count of hosts nor a percentage such as \"25%%\"" % (name, value))
    if result["performance"] is not None:
        problems.extend(performance_problems(result["performance"]))
    if not result["batches"]:
        problems.append("fleet_rollout: batches is empty; the first is the canary, such as [1, \"25%\"]")
    return result, problems


def performance_problems(given):
    """What is wrong with fleet_rollout.performance, one line each."""
    problems = ["fleet_rollout: performance: unknown key '%s'%s" % (name, did_you_mean(name, PERFORMANCE)) for name in sorted(given) if name not in PERFORMANCE]
    for name, (types, default) in PERFORMANCE.items():
        value = given.get(name, default)
        if not isinstance(value, types) or isinstance(value, bool):
            problems.append("fleet_rollout: performance: %s must be %s, not %r" % (name, " or ".join(t.__name__ for t in types), value))
        elif name == "repeats" and value < 2:
            problems.append("fleet_rollout: performance: repeats must be at least 2; one measurement has no spread to judge by")
        elif name in ("minimum_effect", "confidence") and not 0 < value < 1:
            problems.append("fleet_rollout: performance: %s must be between 0 and 1, not %r" % (name, value))
    return problems


def duration(batches, expected):
    """How long batches take together, each as long as its slowest host; None when nothing is known of them.

    :param dict expected: {host: {step: seconds}}.
    """
    if not any(expected.get(host) for batch in batches for host in batch):
        return None
    return sum(max(sum((expected.get(host) or {}).values()) for host in batch) for batch in batches if batch)


def share(value, count):
    """A count of hosts, or a percentage of them (at least one); None when it is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if value >= 1 else None
    text = str(value).strip()
    if text.endswith("%") and text[:-1].strip().replace(".", "", 1).isdigit():
        return max(1, int(math.floor(count * float(text[:-1]) / 100.0)))
    return int(text) if text.isdigit() and int(text) >= 1 else None


def units(plan, work):
    """What changes as one: a host, or the hosts of a model that spans several. [{"name", "hosts"}] in a fixed order."""
    of = {}
    for host in work:
        of.setdefault(host, set([host]))
        for instance in plan["hosts"][host]["instances"]:
            members = [m for m in (instance.get("group") or {}).get("members") or () if m in work]
            joined = set([host]).union(*[of.get(m, set([m])) for m in members]) if members else of[host]
            joined |= of[host]
            for member in joined:
                of[member] = joined
    found = []
    for host in work:
        if not any(host in unit["hosts"] for unit in found):
            hosts = sorted(of[host], key=list(work).index)
            found.append({"name": "+".join(hosts), "hosts": hosts})
    return found


def replicas(surveys, proof):
    """Who serves what: {served model name: {(host, instance): proven}} of what is installed; a group counts once, at its head."""
    found = {}
    for host, survey in surveys.items():
        for name, installed in ((survey or {}).get("instances") or {}).items():
            manifest = installed.get("manifest") or {}
            if not manifest.get("served_model_name") or spanning.is_member(manifest):
                continue
            ready = bool(((proof.get(host) or {}).get(name) or {}).get("ready"))
            found.setdefault(manifest["served_model_name"], {})[(host, name)] = ready
    return found


def minimum(rules, model):
    """How many replicas of a model must stay ready."""
    wanted = rules["min_ready"]
    if isinstance(wanted, dict):
        return int(wanted.get(model, wanted.get("default", 1)))
    return int(wanted)


def sick(plan, surveys):
    """{host: why} of the hosts of which an NPU that an instance has, or is to get, is not known to be healthy; of those that answer."""
    found = {}
    for host, entry in plan["hosts"].items():
        survey = surveys.get(host) or {"unreachable": True}
        if survey.get("unreachable"):
            continue
        tool = (survey.get("npu_smi") or {}).get("info") or {}
        seen = {"health": dict((chip["device"], chip["health"]) for chip in survey.get("chips") or ()),
                "error": "npu-smi: %s" % tool.get("reason", tool.get("kind")) if tool.get("error") else None}
        devices = sorted(set(device for instance in entry["instances"] for device in instance.get("devices") or ()))
        status, words = endpoint.judge_chips(seen, devices)
        if status != "pass":
            found[host] = words
    return found


def left(serving, hosts):
    """{model: how many proven replicas are left} without some hosts, of the models that they serve; a model that nobody serves yet is not among them."""
    result = {}
    for model, where in serving.items():
        if any(host in hosts and ready for (host, _name), ready in where.items()):
            result[model] = sum(1 for (host, _name), ready in where.items() if ready and host not in hosts)
    return result


def compose(plan, differences, serving, work, racks, rules):
    """Put the work into batches.

    :param list work: hosts to be changed. :param dict racks: {host: rack or None}. :param dict rules: of :func:`policy`.
    :param dict serving: of :func:`replicas`.
    :returns: {"batches": [[host]], "units": {host: unit name}, "refusals": [sentence], "worst": {model: {"ready", "left", "minimum"}}, "hash"}.
    """
    waiting = spread(units(plan, work), racks)
    batches, refusals, worst, number = [], [], {}, 0
    while waiting:
        size = share(rules["batches"][min(number, len(rules["batches"]) - 1)], len(work)) or 1
        batch, rest = [], []
        for unit in waiting:
            hosts = batch + unit["hosts"]
            # The first unit of a batch may be larger than the batch: a group changes as one.
            fits = not batch or (len(hosts) <= size and rack_fits(hosts, racks, rules) and not short(serving, hosts, rules))
            if fits:
                batch = hosts
            else:
                rest.append(unit)
        for model, (have, count, least) in sorted(short(serving, batch, rules).items()):
            refusals.append("%s: %d of %d proven replicas of %s would be left while it changes, and at least %d must be; add a replica, or allow the gap "
                            "with -e '{\"fleet_rollout\": {\"min_ready\": {\"%s\": %d}}}'" % (", ".join(batch), count, have, model, least, model, count))
        for model, count in left(serving, batch).items():
            have = sum(1 for ready in serving[model].values() if ready)
            if model not in worst or count < worst[model]["left"]:
                worst[model] = {"ready": have, "left": count, "minimum": minimum(rules, model)}
        batches.append(batch)
        waiting, number = rest, number + 1
    made = {"batches": batches, "refusals": refusals, "worst": worst}
    told = {"plan": plan["hash"], "differences": dict((host, differences[host]) for host in work), "batches": batches, "policy": rules}
    made["hash"] = hashlib.sha256(json.dumps(told, sort_keys=True).encode("utf-8")).hexdigest()
    return made


def short(serving, hosts, rules):
    """{model: (proven now, left without the hosts, minimum)} of the models that would have too few."""
    found = {}
    for model, count in left(serving, hosts).items():
        if count < minimum(rules, model):
            found[model] = (sum(1 for ready in serving[model].values() if ready), count, minimum(rules, model))
    return found


def spread(found, racks):
    """Units one rack after the other in turn, so that a batch leaves every rack something."""
    by_rack = {}
    for unit in found:
        by_rack.setdefault(racks.get(unit["hosts"][0]) or "", []).append(unit)
    result = []
    while any(by_rack.values()):
        for rack in sorted(by_rack):
            if by_rack[rack]:
                result.append(by_rack[rack].pop(0))
    return result


def rack_fits(hosts, racks, rules):
    """Whether no rack would have more hosts out than it may."""
    most = rules["max_unavailable_per_rack"]
    counts = {}
    for host in hosts:
        counts[racks.get(host)] = counts.get(racks.get(host), 0) + 1
    return most is None or all(count <= most for rack, count in counts.items() if rack)


def budget(batch, unready, racks, rules, batches, count):
    """Whether the hosts of a batch may be taken out, everything that is not proven counted.

    :param list batch: hosts that are about to change. :param dict unready: {host: why it is not proven}, of the whole fleet.
    :param int count: hosts of the fleet.
    :returns: (may, sentence with the arithmetic).
    """
    allowed = share(rules["max_unavailable"], count) if rules["max_unavailable"] is not None else max(len(each) for each in batches)
    others = sorted(set(unready) - set(batch))
    total = len(batch) + len(others)
    words = "%d to change + %d not proven%s = %d, and %d may be out" % (
        len(batch), len(others), " (%s)" % "; ".join("%s: %s" % (host, unready[host]) for host in others[:3]) if others else "", total, allowed)
    if total > allowed:
        return False, words
    most = rules["max_unavailable_per_rack"]
    for rack in sorted(set(racks.get(host) for host in batch) - set([None])) if most is not None else ():
        out = [host for host in list(batch) + others if racks.get(host) == rack]
        if len(out) > most:
            return False, "rack %s: %d hosts out (%s), and %d may be" % (rack, len(out), ", ".join(sorted(out)), most)
    return True, words


def capacity(batch, serving, load, rules):
    """Whether what is left can carry what runs.

    :param dict load: {(host, instance): {"running", "waiting", "kv_usage", "max_num_seqs"} or {"error"}} of the proven replicas.
    :returns: [{"model", "ok": True, False or None, "message"}]; None is unknown, and unknown stops.
    """
    verdicts = []
    for model, count in sorted(left(serving, batch).items()):
        least = minimum(rules, model)
        if count < least:
            verdicts.append({"model": model, "ok": False, "message": "%s: %d proven replicas would be left, and at least %d must be" % (model, count, least)})
            continue
        if not count:
            verdicts.append({"model": model, "ok": True, "message": "%s: nobody is left to serve it, which min_ready allows" % model})
            continue
        proven = [key for key, ready in serving[model].items() if ready]
        silent = [key for key in proven if (load.get(key) or {"error": 1}).get("error")]
        if silent:
            verdicts.append({"model": model, "ok": None, "message": "%s: the load of %s is not known (%s)" % (
                model, ", ".join("%s on %s" % (name, host) for host, name in silent[:3]), (load.get(silent[0]) or {}).get("error") or "nobody asked")})
            continue
        staying = [load[key] for key in proven if key[0] not in batch]
        moving = sum(load[key]["running"] + load[key]["waiting"] for key in proven if key[0] in batch)
        total = moving + sum(each["running"] + each["waiting"] for each in staying)
        room = rules["max_load"] * sum(each.get("max_num_seqs") or DEFAULT_MAX_NUM_SEQS for each in staying)
        usage = sum(load[key]["kv_usage"] for key in proven) / len(staying)
        words = "%s: %d requests for %d replicas with room for %.0f, KV cache %.0f %%" % (model, total, len(staying), room, 100 * usage)
        fits = total <= room and usage <= rules["max_kv_usage"]
        if not fits:
            words += "; at most %.0f requests and %.0f %% may be: wait for a quieter hour, or raise max_load or max_kv_usage of fleet_rollout" % (
                room, 100 * rules["max_kv_usage"])
        verdicts.append({"model": model, "ok": fits, "message": words})
    return verdicts


def replay(events):
    """What a journal tells.

    :param list events: in order, see docs/architecture.md.
    :returns: {"begin": the first event's evidence, "hosts": {host: {"step", "outcome", "message", "batch", "out"}}, "batch": how many have begun,
        "outcome": of the rollout or None while it has none, "held": why or None, "seq": of the last event}.
    """
    state = {"begin": None, "hosts": {}, "batch": 0, "outcome": None, "held": None, "seq": 0}
    for event in events:
        state["seq"] = event["seq"]
        kind, host = event["event"], event.get("host")
        if kind == "rollout.begin":
            if state["begin"] is None:
                state["begin"] = event.get("evidence") or {}
            state["outcome"] = state["held"] = None
            # Whoever goes on has read why it stopped: what ended badly is tried once more.
            for entry in state["hosts"].values():
                if entry["outcome"] not in ("done", "unchanged"):
                    entry["outcome"] = None
        elif kind == "batch.begin":
            state["batch"] = event["batch"] + 1
            for name in (event.get("evidence") or {}).get("hosts") or ():
                state["hosts"].setdefault(name, {"step": None, "outcome": None, "message": None, "batch": event["batch"]})
        elif kind == "hold":
            state["held"] = event.get("message")
        elif kind == "leave":
            state["hosts"].setdefault(host, {"step": None, "batch": event.get("batch")}).update(outcome="left out", message=event.get("message"))
        elif kind == "rollout.end":
            state["outcome"] = (event.get("evidence") or {}).get("outcome")
        if host:
            entry = state["hosts"].setdefault(host, {"step": None, "outcome": None, "message": None, "batch": event.get("batch")})
            if kind == "step.begin":
                entry.update(step=event["step"])
            elif kind == "step.end":
                entry.update(step=None)
                if event["step"] in ("drain", "admit") and (event.get("ok") or event["step"] == "drain"):
                    # A drain that failed may have taken it out all the same.
                    entry["out"] = event["step"] == "drain"
                if (event.get("evidence") or {}).get("outcome"):
                    entry.update(outcome=event["evidence"]["outcome"], message=event.get("message"))
    return state


def outcome(hosts, held, planned):
    """How a rollout ends.

    :param dict hosts: {host: outcome of its change}. :param held: why it stopped, or None. :param list planned: all hosts that were to change.
    :returns: (outcome, sentence).
    """
    by = {}
    for host in planned:
        by.setdefault(hosts.get(host) or "untouched", []).append(host)
    words = "; ".join(
        "%s: %s" % (word, ", ".join(by[word]))
        for word in ("down", "quarantined", "unreachable", "failed", "left out", "reverted", "done", "unchanged", "untouched")
        if word in by
    )
    if by.get("down") or by.get("unreachable"):
        return "degraded", words
    if set(by) <= set(["reverted", "unchanged"]) and by.get("reverted"):
        return "reverted", words
    if held or set(by) - set(["done", "unchanged"]):
        return "held", words
    return "done", words


def overhead(events):
    """What the control of a rollout took of each host's time, beyond its drain and its model.

    A host's time begins when its batch is asked for and ends when it is in the traffic again; what its batch takes after its last host is every host's.
    The drain is what the host itself waited for; stop, start, load and proof are the steps of its own job.

    :param list events: of a journal. :returns: {host: {"total_s", "drain_s", "model_s", "overhead_s"}} of the hosts that changed.
    """
    found, batches, last = {}, {}, {}
    for event in events:
        batch, host = event.get("batch"), event.get("host")
        if event["event"] == "batch.begin":
            batches[batch] = {"began": event["time"] - (event.get("elapsed_s") or 0.0), "hosts": event["evidence"]["hosts"]}
        elif event["event"] == "batch.end" and batch in batches:
            ended = [last[each] for each in batches[batch]["hosts"] if each in last]
            for each in batches[batch]["hosts"]:
                if each in found:
                    found[each]["total_s"] += event["time"] - max(ended)
        elif event["event"] == "step.end" and batch in batches and host in batches[batch]["hosts"]:
            entry = found.setdefault(host, {"total_s": 0.0, "drain_s": 0.0, "model_s": 0.0})
            last[host] = event["time"]
            entry["total_s"] = event["time"] - batches[batch]["began"]
            if event["step"] == "drain":
                entry["drain_s"] += (event.get("evidence") or {}).get("elapsed_s") or 0.0
            elif event["step"] in ("switch", "prove", "revert", "prove again"):
                entry["model_s"] += event["elapsed_s"] or 0.0
    for entry in found.values():
        entry["overhead_s"] = entry["total_s"] - entry["drain_s"] - entry["model_s"]
    return dict((host, dict((key, round(value, 2)) for key, value in entry.items())) for host, entry in found.items())
