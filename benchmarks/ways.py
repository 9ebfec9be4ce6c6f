# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways to look at every host that are measured side by side."""

from __future__ import annotations

import glob
import hashlib
import os
import sys

import ground

PEERS = ground.HERE / "peers"
REQUIREMENTS = ground.HERE / "requirements.txt"
VENV = ground.WORK / "venv"
# As many at a time as the product asks.
WIDTH = 64
OURS = ("deploy", "preflight")


def make_venv():
    """The peers in their pinned versions."""
    stamp = VENV / hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if not stamp.exists():
        ground.call(sys.executable, "-m", "venv", "--clear", VENV)
        ground.call(VENV / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--requirement", REQUIREMENTS)
        stamp.touch()
    # The default settings.
    (ground.WORK / "ansible.cfg").touch()


def looks(answers):
    """The shell script."""
    text = (PEERS / "looks.sh").read_text(encoding="utf-8")
    return text + (PEERS / "answers.sh").read_text(encoding="utf-8") if answers else text


def command(way, count, answers):
    """:returns: (argv, {"cwd", "env"}) of one way to look at so many hosts, with what their instances answer or without."""
    folder = ground.inventory(count)
    # Nothing of the product's settings reaches a peer.
    plain = {key: value for key, value in ground.environment().items() if not key.startswith("ANSIBLE_") or key == "ANSIBLE_NOCOLOR"}
    peer = {"cwd": ground.WORK, "env": dict(plain, PATH=f"{VENV / 'bin'}:{os.environ['PATH']}", ANSIBLE_CONFIG=str(ground.WORK / "ansible.cfg"), STATE=str(ground.STATE),
                                            ADDRESSES=str(folder / "addresses"), ANSWERS=str(int(answers)), ANSIBLE_HOME=str(ground.WORK / "home"))}
    playbook = [VENV / "bin" / "ansible-playbook", PEERS / "builtin.yml", "-i", folder]
    if way in OURS:
        name = ["deploy_gemma4.yml"] if way == "deploy" else ["playbooks/preflight.yml", "-e", "reach=false"]
        return [ground.BIN / "ansible-playbook", *name, "-i", folder], {"cwd": ground.ROOT, "env": ground.environment()}
    if way == "openssh":
        ssh = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-i", ground.STATE / "id_ed25519", "-o", f"UserKnownHostsFile={ground.STATE / 'known_hosts_bench'}"]
        return ["xargs", "-a", folder / "addresses", "-P", str(WIDTH), "-I", "{}", *ssh, "root@{}", looks(answers)], peer
    if way == "pyinfra":
        return [VENV / "bin" / "pyinfra", "-y", "--parallel", str(WIDTH), PEERS / "hosts.py", PEERS / "looks.py"], peer
    if way in ("tuned", "mitogen"):
        peer["env"].update(ANSIBLE_FORKS=str(min(count, 32)), ANSIBLE_PIPELINING="1", ANSIBLE_SSH_ARGS="-o ControlMaster=auto -o ControlPersist=60s")
        playbook += ["-e", "facts=false"]
    if way == "mitogen":
        found = glob.glob(str(VENV / "lib" / "python*" / "site-packages" / "ansible_mitogen" / "plugins" / "strategy"))
        peer["env"].update(ANSIBLE_STRATEGY_PLUGINS=found[0], ANSIBLE_STRATEGY="mitogen_linear")
    return playbook, peer
