# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One rollout at a time: a lease that a majority of anchor hosts hold, and the words for those who come second. Pure."""

from __future__ import annotations

import time

DEFAULT_ANCHORS = 3
REQUESTS = ("pause", "abort")
# A controller that renews at every step is dead when it has been silent for a step's whole deadline; this is on top of it.
MARGIN_S = 120.0


def anchors(hosts, chosen=None):
    """The hosts that hold the lease: those that the inventory names, or the first three, or one of two, so that there always is a majority to have."""
    if chosen:
        return list(chosen)
    return sorted(hosts)[:DEFAULT_ANCHORS if len(hosts) >= DEFAULT_ANCHORS else 1]


def quorum(count):
    """How many anchors are a majority."""
    return count // 2 + 1


def same_owner(one, other):
    """Whether two descriptions name the same process."""
    keys = ("name", "host", "boot_id", "pid", "started")
    return bool(one and other) and all(one.get(key) == other.get(key) for key in keys)


def decide(held, wanted, now):
    """Whether an anchor gives its lease.

    :param dict held: what it holds: {"epoch", "owner", "expires", "released", "rollout", "request"}; {} when it never held one.
    :param dict wanted: {"epoch", "owner", "take_over": None or why}.
    :param float now: the anchor's own clock, which alone measures a lease.
    :returns: (given, reason in words or None).
    """
    if held.get("epoch", 0) > wanted["epoch"]:
        return False, "it has seen epoch %d, which is later than %d" % (held["epoch"], wanted["epoch"])
    mine = same_owner(held.get("owner"), wanted["owner"])
    if held.get("epoch", 0) == wanted["epoch"] and held.get("owner") and not mine:
        return False, "epoch %d is taken by %s" % (wanted["epoch"], whose(held, now))
    if mine or not held.get("owner") or held.get("released") or wanted.get("take_over"):
        return True, None
    if held["expires"] <= now:
        return True, "the lease of %s had expired" % whose(held, now)
    return False, "the lease is held by %s" % whose(held, now)


def whose(held, now):
    """The owner of a lease in words: who, since when, for what, and until when."""
    owner = held.get("owner") or {}
    left = held.get("expires", now) - now
    return "%s@%s (process %s, rollout %s, plan %s, since %s UTC, %s)" % (
        owner.get("name"), owner.get("host"), owner.get("pid"), held.get("rollout"), (held.get("plan") or "")[:12],
        time.strftime("%H:%M:%S", time.gmtime(held.get("since", 0))),
        "for another %d s" % left if left > 0 else "expired %d s ago" % -left)


def alive(held, here, running):
    """Whether the owner of a lease may still be at work, as far as this controller can tell.

    :param dict held: the lease. :param dict here: {"host", "boot_id"} of this controller.
    :param running: callable(pid, start) -> whether that process of this controller runs.
    :returns: None when it is another machine's, else a bool.
    """
    owner = held.get("owner") or {}
    if owner.get("host") != here["host"]:
        return None
    return owner.get("boot_id") == here["boot_id"] and running(owner.get("pid"), owner.get("started"))


def tally(answers, count):
    """What the anchors said, together.

    :param dict answers: {anchor: {"given": bool, "reason", "held"} or {"error": why it did not answer}}.
    :param int count: of anchors.
    :returns: (granted, sentence on why not or None, {anchor: reason} of those that are worth telling).
    """
    given = [name for name, answer in answers.items() if answer.get("given")]
    told = dict((name, answer["reason"]) for name, answer in answers.items() if answer.get("given") and answer.get("reason"))
    if len(given) >= quorum(count):
        return True, None, told
    refused = sorted((name, answer["reason"]) for name, answer in answers.items() if answer.get("given") is False)
    silent = sorted(name for name, answer in answers.items() if "given" not in answer)
    parts = ["%s: %s" % pair for pair in refused[:1]]
    if silent:
        parts.append("%s did not answer" % ", ".join(silent))
    return False, "%d of %d anchors give their lease and %d must: %s" % (len(given), count, quorum(count), "; ".join(parts) or "none answered"), told
