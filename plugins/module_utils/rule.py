# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rule of the gate is: its description, the view it gets of one host, and the findings it makes."""

from __future__ import annotations

import re
from collections import namedtuple

STATUSES = ("pass", "fail", "unknown", "waived")

# bounds: {name: default}, tunable in the inventory. after: ids of rules that must not have failed for this one to mean anything.
Rule = namedtuple("Rule", "id title why source check bounds after needs_survey")


class Unread(Exception):
    """A fact that the rule needs is not in the survey."""


def finding(rule, status, found, expected, source, remedy, host=None, instance=None):
    """Build the one object that the gate and the prover speak in; see docs/architecture.md."""
    if status not in STATUSES:
        raise ValueError("status %r of rule %s is none of %s" % (status, rule, ", ".join(STATUSES)))
    return {"rule": rule, "host": host, "instance": instance, "status": status, "found": found,
            "expected": expected, "source": source, "remedy": remedy}


def passed(found, expected, instance=None):
    """What a rule yields when the host is as it must be."""
    return ("pass", found, expected, "", instance)


def failed(found, expected, remedy, instance=None):
    """What a rule yields when the host is not as it must be."""
    return ("fail", found, expected, remedy, instance)


def unsure(found, expected, remedy, instance=None):
    """What a rule yields when the evidence does not decide."""
    return ("unknown", found, expected, remedy, instance)


class View(object):
    """One host as a rule sees it."""

    def __init__(self, context, bounds):
        self.host = context.get("host")
        self.survey = context.get("survey")
        self.plan = context.get("host_plan") or {}
        self.instances = self.plan.get("instances") or []
        self.images = context.get("images") or {}
        # {host: {"survey", "host_plan"}} of the hosts that share a group with this one.
        self.peers = context.get("peers") or {}
        self.platform = context.get("platform") or {}
        self.compatibility = context.get("compatibility") or {}
        self.now_epoch_s = context.get("now_epoch_s")
        self.bounds = bounds

    def peek(self, path):
        """The survey's value at a dotted path, or None."""
        value = self.survey
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def read(self, path):
        """The survey's value at a dotted path.

        :raises Unread: when the survey holds none; the gate turns that into an unknown.
        """
        value = self.peek(path)
        if value is None:
            part = path.split(".")[0]
            reasons = [self.peek(part + ".error")]
            reasons += ["%s: %s" % (e.get("source"), e.get("error")) for e in self.peek("errors") or [] if part in str(e.get("source"))]
            why = "; ".join(str(reason) for reason in reasons if reason)
            raise Unread("the survey could not read %s%s" % (path, " (%s)" % why if why else ""))
        return value

    def wanted_chips(self, instance):
        """The surveyed chips that an instance is to get."""
        devices = davinci(instance)
        return [chip for chip in self.peek("chips") or [] if chip.get("device") in devices]

    def image_of(self, instance):
        """The instance's entry of the plan's images, or {}."""
        return self.images.get(instance.get("image")) or {}


def davinci(instance):
    """The chip devices of an instance, without the devices that all of them share."""
    return [path for path in instance.get("devices") or [] if re.search(r"/davinci\d+$", path)]


def numbers(text):
    """The leading numbers of a plain version, such as (20, 10, 24) of "20.10.24+dfsg1"; () when there are none."""
    match = re.match(r"\s*v?(\d+(?:\.\d+)*)", str(text))
    return tuple(int(part) for part in match.group(1).split(".")) if match else ()


def rule_in(rules, each_instance=False):
    """The decorator that appends a rule to a list.

    The function takes a View, and the instance when each_instance; it yields passed, failed or unsure.
    """
    def describe(id, title, why, source, bounds=None, after=(), needs_survey=True):
        def decorate(judge):
            def check(context):
                view = View(context, dict(bounds or {}, **(context.get("settings") or {})))
                try:
                    for instance in view.instances if each_instance else [None]:
                        verdicts = judge(view) if instance is None else judge(view, instance)
                        for status, found, expected, remedy, name in verdicts:
                            yield finding(id, status, found, expected, source, remedy, view.host, name or (instance or {}).get("name"))
                except Unread as error:
                    yield finding(id, "unknown", str(error), title, source,
                                  "ansible %s -b -m vllm_ascend.fleet.npu_info, and see its errors" % view.host, view.host)
            rules.append(Rule(id, title, why, source, check, dict(bounds or {}), tuple(after), needs_survey))
            return judge
        return decorate
    return describe
