# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which chips each instance of a host gets: pure, deterministic, and with the reason in words."""

from __future__ import annotations

import itertools
import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils.capacity import idle_limit_mib

CONTAINER_PREFIX = "vllm-ascend-"
# How chips belong together. ring: A2, aligned blocks of 1, 2, 4, 8. pair: A3, the two dies of an NPU. card: 300I Duo, whole cards first.
GROUPING = {"910b": "ring", "910c": "pair", "310p": "card"}
RULES_IN_WORDS = {
    "ring": "blocks of 2, 4 and 8 are aligned to their size, other sizes are contiguous",
    "pair": "both dies of an NPU stay together from 2 dies on",
    "card": "whole cards first",
}
# Beyond so many demands only pairs are tried; larger conflicts are then found by leaving out one demand at a time.
EXHAUSTIVE_LIMIT = 10


def foreign_use(chip, own_containers=(), idle_hbm_mib=None):
    """Who else uses a chip.

    :param own_containers: names of containers that may hold it.
    :returns: a phrase, or None when the chip is free or only held by own_containers.
    """
    foreign = [name for name in chip.get("holders") or [] if name not in own_containers]
    if foreign:
        return "held by container %s" % ", ".join(foreign)
    processes = [p for p in chip.get("processes") or [] if not p.get("container") or p["container"] not in own_containers]
    if chip.get("holders"):
        # A process that no container explains is ours on a chip of ours: npu-smi shows the pid of another namespace at times.
        processes = [p for p in processes if p.get("container")]
        if not processes:
            return None
    if processes:
        return "used by " + ", ".join("pid %s (%s)" % (p.get("pid"), p.get("name") or "name not shown") for p in processes)
    used, total = chip.get("hbm_used_mib"), chip.get("hbm_total_mib")
    if used is not None and total and used > idle_limit_mib(total, idle_hbm_mib):
        return "%d MiB of memory in use and no process shown, an idle chip has at most %d" % (used, idle_limit_mib(total, idle_hbm_mib))
    return None


def davinci_number(chip):
    """N of /dev/davinciN, or None."""
    match = re.search(r"davinci(\d+)$", chip.get("device") or "")
    return int(match.group(1)) if match else None


def place(instances, chips, platform, running):
    """Choose chips for every instance of a host.

    :param list instances: [{"name", "devices": how many, "explicit": [davinci numbers] or None}].
    :param list chips: the survey's chips.
    :param dict platform: the catalogue's platform.
    :param dict running: {instance name: [chip index]} of our containers that run now.
    :returns: {"assignments": {name: [chip index]}, "why": [sentence], "conflict": None or {"demands": [...], "message"}}.
    """
    return _Host(instances, chips, platform, running).solve()


class _Host(object):
    def __init__(self, instances, chips, platform, running):
        self.chips = sorted(chips, key=lambda chip: chip["index"])
        self.by_index = dict((chip["index"], chip) for chip in self.chips)
        self.by_number = dict((davinci_number(chip), chip["index"]) for chip in self.chips if davinci_number(chip) is not None)
        self.grouping = GROUPING.get((platform.get("families") or [None])[0], "ring")
        self.chips_per_npu = platform.get("chips_per_npu") or 1
        self.instances = sorted(instances, key=lambda i: i["name"])
        names = set(i["name"] for i in self.instances)
        self.running = dict((name, sorted(c for c in held if c in self.by_index)) for name, held in running.items())
        self.excluded = {}
        holder = dict((index, name) for name in sorted(self.running) for index in self.running[name])
        for chip in self.chips:
            index = chip["index"]
            own = [CONTAINER_PREFIX + holder[index]] if index in holder else []
            use = None if index in holder and not chip.get("holders") else foreign_use(chip, own, platform.get("idle_hbm_mib"))
            if index in holder and holder[index] not in names:
                self.excluded[index] = "held by our instance %s, which is not part of this plan" % holder[index]
            elif use:
                self.excluded[index] = use
            elif chip.get("health") != "OK":
                self.excluded[index] = "health %s" % (chip.get("health") or "not known")
            elif not chip.get("device") or chip.get("device_present") is False:
                self.excluded[index] = "no device node"

    def solve(self):
        faults = self._explicit_faults()
        if faults is not None:
            return {"assignments": {}, "why": [], "conflict": faults}
        assignments, why = self._try(self.instances)
        if assignments is None:
            return {"assignments": {}, "why": [], "conflict": self._conflict()}
        for index in sorted(self.excluded):
            why.append("%s is left out: %s" % (self._label(index), self.excluded[index]))
        return {"assignments": assignments, "why": why, "conflict": None}

    def _label(self, index):
        number = davinci_number(self.by_index[index])
        return "davinci%d" % number if number is not None else "chip %d" % index

    def _labels(self, indexes):
        return ", ".join(self._label(index) for index in indexes)

    def _explicit_faults(self):
        """What is wrong with the devices that the inventory names, before anything is placed."""
        owner = {}
        for instance in self.instances:
            named = instance.get("explicit")
            if not named:
                continue
            if len(set(named)) != len(named):
                return self._fault([instance], "%s names a device twice: %s" % (instance["name"], named))
            if instance.get("devices") not in (None, len(named)):
                return self._fault([instance], "%s asks for %s chips but names %d devices" % (
                    instance["name"], instance["devices"], len(named)))
            absent = [number for number in named if number not in self.by_number]
            if absent:
                return self._fault([instance], "%s names %s, this host has %s" % (
                    instance["name"], ", ".join("davinci%s" % n for n in absent),
                    ", ".join("davinci%d" % n for n in sorted(self.by_number)) or "no davinci device"))
            for number in named:
                if number in owner:
                    return self._fault([owner[number], instance], "%s and %s both name davinci%d" % (
                        owner[number]["name"], instance["name"], number))
                owner[number] = instance
        return None

    def _fault(self, instances, message):
        return {"demands": [self._demand(i) for i in instances], "message": message}

    @staticmethod
    def _demand(instance):
        return {"name": instance["name"], "devices": instance.get("devices"), "explicit": instance.get("explicit")}

    def _try(self, instances):
        """Place these instances, or (None, None)."""
        assignments, why, used = {}, [], set()
        for instance in instances:
            if instance.get("explicit"):
                assignments[instance["name"]] = [self.by_number[n] for n in instance["explicit"]]
                used.update(assignments[instance["name"]])
                why.append("%s gets %s: named in the inventory" % (instance["name"], self._labels(assignments[instance["name"]])))
        open_demands = []
        for instance in instances:
            name = instance["name"]
            held = self.running.get(name) or []
            if name in assignments:
                continue
            if held and len(held) == instance["devices"] and not used & set(held):
                assignments[name] = list(held)
                used.update(held)
                why.append("%s keeps %s: it runs there" % (name, self._labels(held)))
            else:
                open_demands.append(instance)
        open_demands.sort(key=lambda i: (-i["devices"], i["name"]))
        found = self._search(open_demands, 0, frozenset(used), set())
        if found is None:
            return None, None
        for instance in open_demands:
            assignments[instance["name"]] = list(found[instance["name"]])
            why.append("%s gets %s: free and healthy, %s" % (
                instance["name"], self._labels(found[instance["name"]]), RULES_IN_WORDS[self.grouping]))
        return assignments, why

    def _usable(self, name, used):
        """Chips open to an instance: not used, not excluded, and not those on which another instance still runs."""
        others = set(c for other, held in self.running.items() if other != name for c in held)
        return [c["index"] for c in self.chips if c["index"] not in used and c["index"] not in self.excluded and c["index"] not in others]

    def _search(self, demands, position, used, dead):
        """Depth-first over the candidates in their order of preference; dead ends are remembered."""
        if position == len(demands):
            return {}
        if (position, used) in dead:
            return None
        instance = demands[position]
        held = set(self.running.get(instance["name"]) or ())
        blocks = self._candidates(instance["devices"], self._usable(instance["name"], used))
        for block in sorted(blocks, key=lambda b: -len(held & set(b))):
            rest = self._search(demands, position + 1, used | frozenset(block), dead)
            if rest is not None:
                rest[instance["name"]] = block
                return rest
        dead.add((position, used))
        return None

    def _candidates(self, count, usable):
        if count > len(usable) or count < 1:
            return []
        if self.grouping == "ring":
            return self._blocks(count, usable)
        return self._groups(count, usable)

    def _blocks(self, count, usable):
        """Aligned blocks, or contiguous ones for sizes that are no power of two; the fullest neighbourhood first."""
        number = dict((davinci_number(self.by_index[i]), i) for i in usable)
        step = count if count & (count - 1) == 0 else 1
        blocks = []
        for first in range(0, max(number) + 1, step):
            block = range(first, first + count)
            if all(n in number for n in block):
                # A half-used neighbourhood is filled first, so that whole ones stay for the larger demands of tomorrow.
                neighbours = sum(1 for n in number if n // (2 * count) == first // (2 * count))
                blocks.append((neighbours, first, tuple(number[n] for n in block)))
        return [block for _neighbours, _first, block in sorted(blocks)]

    def _groups(self, count, usable):
        """Chips of NPUs (A3) or cards (Duo). Several whole units next to each other come first; a single chip goes to a half-used unit."""
        units = {}
        for index in usable:
            units.setdefault(self.by_index[index]["npu_id"], []).append(index)
        # A die that dropped off the bus still belongs to its NPU; a card may be a single-chip one.
        size = {} if self.grouping == "card" else dict.fromkeys(units, self.chips_per_npu)
        for chip in self.chips if self.grouping == "card" else ():
            size[chip["npu_id"]] = size.get(chip["npu_id"], 0) + 1
        order = sorted(units)
        if count == 1:
            return [(units[unit][0],) for unit in sorted(order, key=lambda u: (len(units[u]), u))]
        whole = [unit for unit in order if len(units[unit]) == size[unit]]
        candidates = []
        for start in range(len(whole)):
            block, taken = [], start
            while len(block) < count and taken < len(whole):
                block += units[whole[taken]]
                taken += 1
            if len(block) >= count:
                # An odd demand leaves one chip of its last unit to a single.
                numbers = [davinci_number(self.by_index[index]) for index in block]
                scattered = numbers != list(range(numbers[0], numbers[0] + len(numbers)))
                candidates.append((scattered, numbers[0] % count != 0, start, tuple(block[:count])))
        blocks = [candidate[-1] for candidate in sorted(candidates)]
        if self.grouping == "card":
            # Cards are joined by PCIe only: any chips will do when whole cards do not.
            loose = sorted(usable, key=lambda i: (len(units[self.by_index[i]["npu_id"]]), i))
            blocks.append(tuple(sorted(loose[:count])))
        elif count % 2:
            blocks += self._odd_pairs(count, whole, units)
        return blocks

    @staticmethod
    def _odd_pairs(count, whole, units):
        """An odd number of dies: whole NPUs and one die of an NPU whose other die is taken."""
        halves = [unit for unit in sorted(units) if unit not in whole]
        if len(whole) < count // 2:
            return []
        body = [index for unit in whole[:count // 2] for index in units[unit]]
        return [tuple(body + [units[half][0]]) for half in halves]

    def _impossible(self, most):
        """The first of the smallest sets of at most so many demands that cannot be placed, or None."""
        for count in range(1, most + 1):
            for chosen in itertools.combinations(self.instances, count):
                if self._try(list(chosen))[0] is None:
                    return list(chosen)
        return None

    def _conflict(self):
        """The smallest set of demands that cannot hold together."""
        culprits = self._impossible(len(self.instances) if len(self.instances) <= EXHAUSTIVE_LIMIT else 2)
        if culprits is None:
            culprits = list(self.instances)
            for instance in self.instances:
                fewer = [i for i in culprits if i is not instance]
                if self._try(fewer)[0] is None:
                    culprits = fewer
        usable = [c["index"] for c in self.chips if c["index"] not in self.excluded]
        wanted = sum(i["devices"] or len(i["explicit"]) for i in culprits)
        left_out = "".join("; %s: %s" % (self._label(i), self.excluded[i]) for i in sorted(self.excluded))
        demands = ", ".join("%s %s" % (i["name"], "on davinci%s" % i["explicit"] if i.get("explicit") else "x%d" % i["devices"])
                            for i in culprits)
        return self._fault(culprits, "%s want%s %d of %d usable chips (%s; %s)%s" % (
            demands, "s" if len(culprits) == 1 else "", wanted, len(usable), self._labels(usable) or "none",
            RULES_IN_WORDS[self.grouping], left_out))
