# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import reachability


@pytest.mark.parametrize("answer, kind", [
    ({"unreachable": True, "msg": "Failed to connect to the host via ssh: ssh: connect to host 192.0.2.1 port 22: Connection refused"}, "port"),
    ({"unreachable": True, "msg": "ssh: connect to host 192.0.2.1 port 22: Connection timed out"}, "network"),
    ({"unreachable": True, "msg": "ssh: Could not resolve hostname a2-99: Name or service not known"}, "name"),
    ({"unreachable": True, "msg": "root@192.0.2.1: Permission denied (publickey)."}, "authentication"),
    ({"unreachable": True, "msg": "@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@"}, "host_key"),
    ({"failed": True, "msg": "Missing sudo password"}, "sudo"),
    ({"failed": True, "rc": 127, "module_stdout": "/bin/sh: 1: /usr/bin/python3: not found\r\n"}, "python"),
    ({"failed": True, "module_stderr": "  File \"<stdin>\", line 12\nSyntaxError: future feature annotations is not defined"}, "python"),
    ({"failed": True, "msg": "something new\nsecond line"}, "unknown"),
])
def test_every_way_of_no_answer_has_a_kind_and_a_remedy(answer, kind):
    survey = reachability.explain(answer, "/usr/bin/python3")
    assert survey["unreachable"] is True
    assert survey["kind"] == kind
    assert survey["remedy"]
    assert "\n" not in survey["error"]


def test_the_interpreter_that_failed_is_named():
    survey = reachability.explain({"rc": 127, "module_stdout": "/opt/py: not found"}, "/opt/py")
    assert "/opt/py" in survey["error"]


@pytest.mark.parametrize("told, expected", [(105, 105), (99, 100), (117, 110), (None, 105)])
def test_a_clock_is_wrong_only_outside_of_the_round_trip(told, expected):
    assert reachability.read_at({"host": {"epoch_s": told}}, [100.0, 110.0]) == expected
