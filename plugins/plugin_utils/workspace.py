# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tasks of one ansible-playbook hand to each other: surveys and the plan, as files of the run's own temporary folder. Controller only.

Registered variables would do, but Ansible walks through each of them at every task: the surveys of 256 hosts cost a minute on ansible-core 2.16.
"""

from __future__ import annotations

import json
import os
import pathlib

from ansible import constants


class Missing(Exception):
    """What an earlier task should have left is not there."""


def folder():
    """The folder, of mode 0700; Ansible removes it when the run ends."""
    path = pathlib.Path(constants.DEFAULT_LOCAL_TMP) / "vllm_ascend_fleet"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def save(name, content):
    """Keep something for later tasks, whole or not at all."""
    target = folder() / (name + ".json")
    temporary = target.with_name(".%s.%d" % (target.name, os.getpid()))
    temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    os.replace(temporary, target)


def load(name, default=None):
    """What an earlier task of this run left. :raises Missing: without a default, when none did."""
    try:
        return json.loads((folder() / (name + ".json")).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if default is not None:
            return default
        raise Missing("no earlier task of this run left %s; run the whole playbook" % name) from error
