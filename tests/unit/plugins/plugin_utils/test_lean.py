# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One program over the connection of a task, to this machine."""

from __future__ import annotations

import sys

import pytest
import ssh_action
from ansible.errors import AnsibleConnectionFailure
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import lean

ENTRY = "lease_host:answer"


@pytest.fixture(params=["local", "handheld"])
def action(request, tmp_path):
    """An action whose connection carries standard input, or does not."""
    (tmp_path / "plugins").mkdir()
    ssh_action.add_connections(tmp_path / "plugins")
    connection = connection_loader.get(request.param, PlayContext(), "/dev/null", ansible_playbook_pid="1")
    connection.set_options(task_keys={}, var_options={})
    connection._shell.set_options(task_keys={}, var_options={"ansible_remote_tmp": str(tmp_path / "remote")})
    made = ssh_action.make(connection)
    made.carries = connection.has_pipelining
    return made


def script(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


def look(action, tmp_path, python=sys.executable):
    return lean.execute(action, ENTRY, {"directory": str(tmp_path), "act": "look"}, {"ansible_python_interpreter": python})


def test_a_function_of_ours_answers(action, tmp_path):
    (tmp_path / "rollout.json").write_text('{"rollout": "r1"}')
    assert look(action, tmp_path)["held"] == {"rollout": "r1"}


def test_a_program_in_a_file_is_its_user_s_alone_and_does_not_stay(action, tmp_path):
    spy = script(tmp_path / "spy", '[ "$2" = - ] || stat -c "%%a" "$2" "$(dirname "$2")" >%s/modes\nexec %s "$@"\n' % (tmp_path, sys.executable))
    assert look(action, tmp_path, spy)["given"]
    assert action.carries or [mode[1:] for mode in (tmp_path / "modes").read_text().split()] == ["00", "00"]
    assert action.carries or not list((tmp_path / "remote").iterdir())


@pytest.mark.parametrize("says, words", [
    ("echo first; echo 'This account is not available.' >&2; exit 1", "the host ran no program: This account is not available."),
    ("echo 'only this'; exit 1", "the host ran no program: only this"),
    ("exit 5", "the host ran no program: exit 5 without a word"),
])
def test_a_host_that_runs_no_program_is_told_in_one_line(action, tmp_path, says, words):
    answer = look(action, tmp_path, script(tmp_path / "python", says + "\n"))
    assert answer["failed"] and answer["msg"] == words


def test_the_function_s_own_failure_is_left_as_it_is(action):
    answer = lean.execute(action, "look:answer", {}, {"ansible_python_interpreter": sys.executable})
    assert answer["failed"] and answer["msg"] == "look failed on the host: KeyError: 'survey'"


def test_a_host_out_of_reach_stays_the_caller_s_affair(action, tmp_path, monkeypatch):
    def lost(*args, **more):
        raise AnsibleConnectionFailure("timed out")

    monkeypatch.setattr(action._connection, "exec_command", lost)
    with pytest.raises(AnsibleConnectionFailure):
        look(action, tmp_path)
