# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options shared by the modules that drive a container engine and a registry."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  engine:
    description: Container engine to drive. When unset, docker is taken if it is there, else podman.
    type: str
    choices: [docker, podman]
  engine_path:
    description: Path of the engine's command, when it is not in the usual places.
    type: path
  registry_username:
    description:
      - User name for the registry of the wanted image. It is sent to that registry alone, never to a mirror.
    type: str
  registry_password:
    description:
      - Password or token that belongs to O(registry_username). It never stands in an argument list or an output, and is on disk only
        while the engine runs, in a private folder (mode 0700) that is removed afterwards.
    type: str
  timeout_s:
    description: Seconds for the whole task, every retry and mirror included.
    type: int
    default: 7200
"""
