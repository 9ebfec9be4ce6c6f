# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An action as Ansible makes one, with hosts that are plain variables."""

from __future__ import annotations

import types

from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader
from ansible.template import Templar

# Reaches this machine, and cannot carry a program on standard input, as kubectl and network devices can't.
WITHOUT_PIPELINING = '''
from __future__ import annotations
from ansible.plugins.connection.local import Connection as Local
DOCUMENTATION = """
name: handheld
short_description: as local
description: as local
author: nobody
extends_documentation_fragment: [connection_pipelining]
"""

class Connection(Local):
    transport = "handheld"
    has_pipelining = False
'''


class HostVars(dict):
    """What Ansible hands to an action as hostvars."""

    raw_get = dict.__getitem__


class Action(ActionBase):
    def run(self, tmp=None, task_vars=None):
        raise NotImplementedError


def make(connection=None, **keywords):
    """An action whose task has some keywords."""
    task, loader = Task(), DataLoader()
    for name, value in keywords.items():
        setattr(task, name, value)
    made = Action(task=task, connection=connection, play_context=PlayContext(), loader=loader, templar=Templar(loader=loader), shared_loader_obj=None)
    made._display = types.SimpleNamespace(vv=lambda text: None, display=lambda text, color=None: None)
    return made


def add_connections(folder):
    """Have Ansible know the connection plugin ``handheld``."""
    (folder / "handheld.py").write_text(WITHOUT_PIPELINING)
    connection_loader.add_directory(str(folder))
