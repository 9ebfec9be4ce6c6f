# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host downloads, the others fetch from those that have it."""

from __future__ import annotations

import types

from ansible_collections.vllm_ascend.fleet.plugins.action import weights_distribution
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import distribution, fan_out


def test_the_number_of_those_that_have_it_triples():
    assert distribution.wave(["a"], ["b", "c", "d"], 2) == {"b": "a", "c": "a"}
    assert distribution.wave(["a", "b", "c"], list("defghijk"), 2) == dict(zip("defghi", "abcabc"))
    assert distribution.wave(["a"], [], 2) == {}


class Fleet:
    """Hosts whose folders are whole or not; `shut` ones cannot be reached by others, `dead` ones answer nothing."""

    def __init__(self, monkeypatch, whole=(), shut=(), dead=(), unlucky=()):
        self.whole, self.shut, self.dead, self.unlucky, self.serving, self.waves, self.shown = set(whole), shut, dead, unlucky, {}, [], []
        monkeypatch.setattr(fan_out, "ask", self.ask)

    def ask(self, _action, requests, entry, _hostvars, _deadline):
        assert entry == "weights_host:answer"
        if any(request["act"] == "fetch" for request in requests.values()):
            self.waves.append({host: request["where"] for host, request in requests.items()})
        return {host: {"unreachable": True, "msg": "it is off"} if host in self.dead else self.one(host, request) for host, request in requests.items()}

    def one(self, host, request):
        if request["act"] == "look":
            return {"problems": [] if host in self.whole else ["no file of weights"]}
        if request["act"] == "serve":
            self.serving[host] = request["token"]
            return {"port": 4000}
        if request["act"] == "stop":
            del self.serving[host]
            return {"changed": True}
        donor = request["where"].split("//")[1].split(":")[0]
        if host in self.unlucky or donor in self.shut:
            return {"failed": True, "msg": "%s cannot be reached" % request["where"]}
        if donor != "far":
            assert request["where"].endswith("/" + self.serving[donor]) and donor in self.whole
        self.whole.add(host)
        return {"changed": True, "actions": [], "elapsed_s": 1.0}

    def run(self, hosts):
        action = types.SimpleNamespace(_display=types.SimpleNamespace(display=self.shown.append))
        options = {"source": "http://far:80/m", "width": 2, "timeout_s": 9, "manifest": "auto"}
        one = distribution.Distribution(action, {host: {} for host in hosts}, "/models/m", options)
        one.run(hosts)
        return one


HOSTS = ["h%d" % number for number in range(9)]


def test_one_transfer_comes_from_afar(monkeypatch):
    fleet = Fleet(monkeypatch)
    one = fleet.run(HOSTS)
    assert fleet.whole == set(HOSTS) and [len(wave) for wave in fleet.waves] == [1, 2, 6] and not one.problems and not fleet.serving
    assert [each["from"] for each in one.transfers].count("http://far:80/m") == 1


def test_who_has_it_serves_and_nobody_asks_afar(monkeypatch):
    fleet = Fleet(monkeypatch, whole=["h3"])
    fleet.run(HOSTS[:4])
    assert fleet.whole == set(HOSTS[:4]) and all("far" not in where for wave in fleet.waves for where in wave.values())


def test_nothing_is_asked_when_all_have_it_or_there_is_only_one(monkeypatch):
    assert Fleet(monkeypatch, whole=HOSTS).run(HOSTS).transfers == []
    fleet = Fleet(monkeypatch)
    fleet.run(["h0"])
    assert fleet.waves == []


def test_a_host_that_fails_or_is_gone_holds_nobody_up(monkeypatch):
    fleet = Fleet(monkeypatch, dead=["h4"], unlucky=["h0", "h5"])
    one = fleet.run(HOSTS)
    assert fleet.whole == set(HOSTS) - {"h0", "h4", "h5"} and len(one.problems) == 3 and not fleet.serving


def test_those_that_cannot_be_reached_by_others_are_told(monkeypatch):
    fleet = Fleet(monkeypatch, shut=["h0"])
    one = fleet.run(HOSTS[:3])
    assert fleet.whole == {"h0"} and len(one.problems) == 2 and "h1: http://h0:4000/" in one.problems[0] and not fleet.serving


def act(check_mode=False, **args):
    made = object.__new__(weights_distribution.ActionModule)
    made._task = types.SimpleNamespace(args=args, check_mode=check_mode, async_val=0, diff=False)
    made._connection = types.SimpleNamespace(_shell=types.SimpleNamespace(tmpdir="/tmp"))
    made.warned = []
    made._display = types.SimpleNamespace(display=lambda text: None, warning=made.warned.append)
    made.validate_argument_spec = lambda spec: (None, {key: args.get(key, rule.get("default")) for key, rule in spec.items()})
    return dict(made.run(task_vars={"hostvars": {host: {} for host in HOSTS}}), warned=made.warned)


def test_each_model_goes_to_the_hosts_that_want_it(monkeypatch):
    fleet = Fleet(monkeypatch, dead=["h2"])
    given = {"weights": {"h0": ["/models/m"], "h1": ["/models/m", "/models/n"], "h2": ["/models/m"]}, "source": "http://far:80/models/"}
    assert act(check_mode=True, **given) == {"changed": False, "transfers": [], "warned": []} and fleet.waves == []
    done = act(**given)
    assert done["changed"] and [(each["host"], each["path"], each["from"]) for each in done["transfers"]] == [
        ("h0", "/models/m", "http://far:80/models/m"), ("h1", "/models/m", "h0")]
    assert done["warned"] == ["h2: it is off; this host is not served by others"]
    assert "width must be at least 1" in act(width=0, **given)["msg"]
