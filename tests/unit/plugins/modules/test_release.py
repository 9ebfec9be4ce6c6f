# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases on real files, see fake_host."""

from __future__ import annotations

import json
import os
import stat

import pytest
from fake_host import NEW, OLD, World, instance

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import release as domain


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_first_install_then_nothing(world):
    wanted = [instance("one", OLD), instance("two", OLD)]
    foretold = world.run(wanted, check_mode=True)
    assert world.tree() == {} and world.calls() == []
    done = world.run(wanted)
    assert done["changed"] and foretold["changed"]
    assert (done["actions"], done["diff"]) == (foretold["actions"], foretold["diff"])
    assert done["instances"]["one"] == {
        "release": OLD, "previous": None, "active_state": "active", "actions": [
            "write release %s of one" % OLD, "switch one from nothing to %s" % OLD, "install unit vllm-ascend-one.service", "reload systemd",
            "enable vllm-ascend-one.service", "start vllm-ascend-one.service"]}
    assert world.calls() == [
        "systemctl daemon-reload", "systemctl enable vllm-ascend-one.service vllm-ascend-two.service",
        "systemctl reset-failed vllm-ascend-one.service vllm-ascend-two.service", "systemctl start vllm-ascend-one.service vllm-ascend-two.service"]
    for check_mode in (True, False):
        again = world.run(wanted, check_mode=check_mode)
        assert not again["changed"] and again["actions"] == [] and again["diff"] == []
    assert world.calls() == []


def test_only_the_changed_instance_restarts(world):
    world.run([instance("one", OLD), instance("two", OLD)])
    world.calls()
    wanted = [instance("one", OLD), instance("two", NEW)]
    foretold = world.run(wanted, check_mode=True)
    done = world.run(wanted)
    assert foretold["actions"] == done["actions"] and foretold["diff"] == done["diff"]
    assert foretold["instances"]["two"]["previous"] == OLD
    calls = world.calls()
    assert calls[0] == "systemctl stop vllm-ascend-two.service"
    assert not any("one" in call for call in calls)
    assert done["instances"]["two"]["release"] == NEW and done["instances"]["two"]["previous"] == OLD
    texts = [(part["before"], part["after"]) for part in done["diff"] if "service of" in part["after_header"] and "state" not in part["after_header"]]
    assert OLD in texts[0][0] and NEW in texts[0][1]


def test_all_stops_come_before_all_starts(world):
    world.run([instance("one", OLD), instance("two", OLD)])
    world.calls()
    world.run([instance("one", NEW), instance("two", NEW)])
    verbs = [call.split()[1] for call in world.calls()]
    assert verbs == ["stop", "daemon-reload", "reset-failed", "start"]


def test_secret_is_private_restarts_and_is_never_shown(world):
    wanted = [instance("one", OLD, secret=True)]
    world.run(wanted, secrets={"one": {"VLLM_API_KEY": "planted-1"}})
    path = world.path("secrets", "one.secret")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert open(path).read() == "VLLM_API_KEY=planted-1\n"
    world.calls()
    changed = world.run(wanted, secrets={"one": {"VLLM_API_KEY": "planted-2"}})
    assert "planted" not in json.dumps(changed) and "secret changed" in json.dumps(changed["diff"])
    assert [call.split()[1] for call in world.calls()] == ["stop", "reset-failed", "start"]
    os.chmod(path, 0o644)
    assert world.run(wanted, secrets={"one": {"VLLM_API_KEY": "planted-2"}})["actions"] == ["write the secret of one"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600 and world.calls() == []
    world.run([instance("one", NEW)])
    assert not os.path.exists(path)


def test_rollback_and_its_way_back(world):
    world.run([instance("one", OLD)])
    world.run([instance("one", NEW)])
    back = world.run([{"name": "one"}], state="previous")
    assert back["changed"] and back["instances"]["one"]["release"] == OLD
    assert back["instances"]["one"]["previous"] is None, "a release that was left is not gone back to"
    assert world.state["containers"]["vllm-ascend-one"]["release"] == OLD
    assert not world.run([{"name": "one", "release": {"id": OLD}}], state="previous")["changed"]
    with pytest.raises(domain.ReleaseError, match="no previous release"):
        world.run([{"name": "one"}], state="previous")
    named = [{"name": "one", "release": {"id": NEW}}]
    assert world.run(named, state="previous", check_mode=True)["instances"]["one"]["release"] == NEW
    assert world.run(named, state="previous")["instances"]["one"]["release"] == NEW


def test_rollback_without_a_previous_release(world):
    world.run([instance("one", OLD)])
    with pytest.raises(domain.ReleaseError, match="'one' has no previous release on this host \\(current is aaaaaaaaaaaa\\)"):
        world.run([{"name": "one"}], state="previous")


def test_absent_leaves_nothing_of_ours_and_everything_else(world):
    world.run([instance("one", OLD, secret=True), instance("two", OLD)], secrets={"one": {"K": "v"}})
    state = world.state
    state["containers"]["stranger"] = {"instance": None, "release": None, "running": True}
    state["containers"]["left-over"] = {"instance": "one", "release": OLD, "running": False}
    world.save(state)
    foretold = world.run([{"name": "one"}], state="absent", check_mode=True)
    done = world.run([{"name": "one"}], state="absent")
    assert foretold["actions"] == done["actions"] and len(done["actions"]) == 5
    assert sorted(world.state["containers"]) == ["stranger", "vllm-ascend-two"]
    assert not os.path.exists(world.path("secrets")) and os.listdir(world.path("state", "instances")) == ["two"]
    assert not world.run([{"name": "one"}], state="absent")["changed"]
    world.run([{"name": "two"}], state="absent")
    assert world.tree() == {} and not os.path.exists(world.path("state"))


def test_containers_that_docker_only_lists_are_no_work(world):
    world.change(containers={"ghost": {"instance": "one", "release": OLD, "running": False, "ghost": True}})
    assert not world.run([{"name": "one"}], state="absent")["changed"]


def test_absent_keeps_what_others_put_beside_us(world):
    world.run([instance("one", OLD)])
    open(world.path("state", "a-note"), "w").close()
    with open(world.path("units", "vllm-ascend-two.service"), "w") as stream:
        stream.write("[Service]\n")
    world.run([{"name": "one"}, {"name": "two"}], state="absent")
    assert sorted(world.tree()) == ["state/a-note", "units/vllm-ascend-two.service"]


@pytest.mark.parametrize("lever, words", [
    ({"units": {"vllm-ascend-one.service": {"load_state": "masked"}}}, "is masked.*systemctl unmask vllm-ascend-one.service"),
    ({"containers": {"vllm-ascend-one": {"instance": None, "release": None, "running": True}}}, "a container named vllm-ascend-one exists that is not ours"),
    ({"containers": {"vllm-ascend-one": {"instance": "two", "release": OLD, "running": False}}}, "not ours .*not running"),
    ({"down": True}, "docker does not answer: Cannot connect"),
])
def test_refusals_come_before_any_change(world, lever, words):
    world.change(**lever)
    for check_mode in (True, False):
        with pytest.raises(domain.ReleaseError, match=words):
            world.run([instance("one", NEW)], check_mode=check_mode)
    assert world.tree() == {} and world.calls() == []


def test_foreign_unit_file_is_refused(world):
    with open(world.path("units", "vllm-ascend-one.service"), "w") as stream:
        stream.write("[Service]\nExecStart=/bin/true\n")
    with pytest.raises(domain.ReleaseError, match="exists and was not made by us"):
        world.run([instance("one", NEW)])


@pytest.mark.parametrize("verb", ["stop", "daemon-reload", "start"])
def test_a_failing_step_puts_everything_back(world, verb):
    world.run([instance("one", OLD), instance("two", OLD)])
    before = world.tree()
    world.change(broken=[verb])
    with pytest.raises(domain.ReleaseError, match="failed because of a lever.*are back as they were.*started again: vllm-ascend-one") as caught:
        world.run([instance("one", NEW), instance("two", NEW)])
    assert caught.value.details["restored"] is True
    after = world.tree()
    assert dict((k, v) for k, v in after.items() if NEW not in k) == before
    assert world.state["units"]["vllm-ascend-one.service"]["active"] == "active"
    assert world.state["containers"]["vllm-ascend-two"]["release"] == OLD
    assert world.run([instance("one", NEW), instance("two", NEW)])["changed"]


def test_failed_first_install_leaves_no_unit(world):
    world.change(broken=["start"])
    with pytest.raises(domain.ReleaseError, match="back as they were"):
        world.run([instance("one", NEW)])
    assert os.listdir(world.path("units")) == [] and not world.state["units"]["vllm-ascend-one.service"].get("enabled")


def test_a_reload_that_does_nothing_is_noticed_before_the_start(world):
    world.run([instance("one", OLD)])
    world.change(deaf=True, calls=[])
    with pytest.raises(domain.ReleaseError, match="is older than its file although systemd was reloaded"):
        world.run([instance("one", NEW)])
    assert world.state["calls"].index("systemctl daemon-reload") == 1
    assert sum(call.startswith("systemctl start") for call in world.state["calls"]) == 1


def test_an_interrupted_run_is_finished_by_the_next(world):
    world.run([instance("one", OLD)])
    state = world.state
    # Cut off after the stop, and after the files but before the start.
    state["units"]["vllm-ascend-one.service"]["active"] = "inactive"
    state["containers"] = {}
    world.save(state)
    assert world.run([instance("one", OLD)])["actions"] == ["start vllm-ascend-one.service"]


def test_a_container_of_another_release_is_replaced(world):
    world.run([instance("one", OLD)])
    state = world.state
    state["containers"]["vllm-ascend-one"]["release"] = NEW
    world.save(state)
    assert world.run([instance("one", OLD)])["actions"] == ["stop vllm-ascend-one.service", "start vllm-ascend-one.service"]


def test_hand_edits_are_seen_and_undone(world):
    world.run([instance("one", OLD)])
    with open(world.path("units", "vllm-ascend-one.service"), "a") as stream:
        stream.write("# by hand\n")
    seen = world.run([instance("one", OLD)], check_mode=True)
    assert "# by hand" in seen["diff"][0]["before"] and "# by hand" not in seen["diff"][0]["after"]
    world.run([instance("one", OLD)])
    assert not world.run([instance("one", OLD)])["changed"]
    with open(world.path("state", "instances", "one", "current", "environment"), "a") as stream:
        stream.write("B=2\n")
    assert [a.split()[0] for a in world.run([instance("one", OLD)])["actions"]] == ["stop", "write", "start"]


def test_a_new_manifest_alone_restarts_nothing(world):
    world.run([instance("one", OLD)])
    wanted = instance("one", OLD)
    wanted["release"]["files"]["manifest.json"] = '{"ready_timeout_s": 1800}\n'
    world.calls()
    assert world.run([wanted])["actions"] == ["write release %s of one" % OLD] and world.calls() == []


def test_old_releases_are_pruned_but_never_current_and_previous(world):
    ids = [letter * 12 for letter in "abcdef"]
    for number, release_id in enumerate(ids):
        world.run([instance("one", release_id)], keep=3)
        os.utime(world.path("state", "instances", "one", "releases", release_id), (number, number))
    assert sorted(os.listdir(world.path("state", "instances", "one", "releases"))) == ids[3:]
    world.run([instance("one", ids[4])], keep=0)
    assert sorted(os.listdir(world.path("state", "instances", "one", "releases"))) == ids[4:]


def test_stop_and_start(world):
    world.run([instance("one", OLD)])
    world.calls()
    assert world.run([{"name": "one"}], state="stopped", check_mode=True)["changed"] and world.calls() == []
    assert world.run([{"name": "one"}], state="stopped")["instances"]["one"]["active_state"] == "inactive"
    assert not world.run([{"name": "one"}], state="stopped")["changed"]
    assert world.run([{"name": "one"}], state="started")["changed"]
    with pytest.raises(domain.ReleaseError, match="unit vllm-ascend-two.service is not installed"):
        world.run([{"name": "two"}], state="started")
