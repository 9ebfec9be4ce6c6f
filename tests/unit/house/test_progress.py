# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, The vllm_ascend.fleet authors

"""The live view in a real ansible-playbook, in a terminal and in a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from house import ROOT

PLAY = """
- name: A play
  hosts: all
  connection: local
  gather_facts: false
  tasks:
    - name: Work
      ansible.builtin.command: sleep 0.7
    - name: Break
      ansible.builtin.fail: {msg: 'no space left; free the disk'}
      when: inventory_hostname == 'h2'
    - name: More
      ansible.builtin.debug: {msg: a message}
"""


@pytest.fixture
def command(tmp_path):
    (tmp_path / "play.yml").write_text(PLAY)
    program = Path(sys.executable).with_name("ansible-playbook")
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "NO_COLOR")}
    environment.update(ANSIBLE_STDOUT_CALLBACK="vllm_ascend.fleet.progress", TERM="xterm-256color", ANSIBLE_LOCALHOST_WARNING="0")
    return [program, tmp_path / "play.yml", "-i", "h1,h2,h3", "-e", f"ansible_python_interpreter={sys.executable}"], environment


def test_in_a_pipe_lines_are_plain(command):
    argv, environment = command
    done = subprocess.run(argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "\x1b[?25" not in done.stdout and "h2: Break: failed" in done.stdout and "h1: Work: ok" in done.stdout
    assert done.stdout.rstrip().endswith("3 hosts: 2 ok, 1 failed; 3 changed\nh2: Break: no space left; free the disk"), done.stdout


def test_in_a_terminal_each_host_has_a_live_line(command):
    argv, environment = command
    ours, theirs = pty.openpty()
    with subprocess.Popen(argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            seen += part
        os.close(ours)
        assert process.wait(60) == 2, seen.decode()
    text = seen.decode("utf-8", "replace")
    assert "> h1" in text and "\x1b[?25l" in text, text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is shown again"
    assert "x h2" in text and "no space left; free the disk" in text.rsplit("1 failed", 1)[1], text
