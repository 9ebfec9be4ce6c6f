#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Install, switch, roll back and remove the releases of a host's instances
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Brings all instances of one host to the wanted release in one round trip. A release is a folder with the systemd unit, the
    environment and a manifest; C(current) and C(previous) point at two of them.
  - Only instances that differ are restarted. All that have to stop are stopped before any is started, so that two instances may
    exchange their devices. Starting does not wait for readiness, that is the task of M(vllm_ascend.fleet.endpoint_gate).
  - When a step fails, links, units and secrets are put back, what ran before is started again, and the message says so.
  - Containers and unit files that are not ours are never touched, and masked units are never unmasked.
options:
  state:
    description:
      - V(present) installs and starts the given releases.
      - V(previous) switches each instance back to the release that ran before the current one, and forgets the one it left.
      - V(absent) removes units, releases, secrets and containers of the given instances, and nothing else.
      - V(started) and V(stopped) only start and stop what is installed.
    type: str
    choices: [present, previous, absent, started, stopped]
    default: present
  instances:
    description:
      - The instances, as the plan gives them. For V(state=present) each holds C(name), C(unit), C(container), C(secret) and C(release).
      - For the other states C(name) is enough. With C(release.id) and V(state=previous), an instance goes back to that
        release, and is left alone when it already runs it.
    type: list
    elements: dict
    required: true
  secrets:
    description: For each instance by name the variables that only it may read. They are written to a file of mode 0600.
    type: dict
    default: {}
  state_directory:
    description: Where the releases are kept.
    type: path
    default: /var/lib/vllm-ascend-fleet
  unit_directory:
    description: Where the units are installed.
    type: path
    default: /etc/systemd/system
  secret_directory:
    description: Where the secrets are kept. The units of the plan expect the default.
    type: path
    default: /etc/vllm-ascend-fleet
  keep:
    description: How many releases of each instance stay on the host. The current and the previous one always stay.
    type: int
    default: 3
  engine:
    description: The container engine; found out when not given.
    type: str
    choices: [docker, podman]
  engine_path:
    description: Path of the engine's command.
    type: path
  systemctl:
    description: The C(systemctl) to use.
    type: str
    default: systemctl
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes
"""

EXAMPLES = r"""
- name: Bring all instances of this host to the release of the plan
  vllm_ascend.fleet.release:
    instances: "{{ plan.hosts[inventory_hostname].instances }}"
    secrets: "{{ fleet_secrets }}"

- name: Return to the release that ran before
  vllm_ascend.fleet.release:
    state: previous
    instances:
      - name: gemma-4-e2b-it

- name: Remove an instance
  vllm_ascend.fleet.release:
    state: absent
    instances:
      - name: gemma-4-e2b-it
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: always
  type: list
  elements: str
  sample: [stop vllm-ascend-gemma-4-e2b-it.service, switch gemma-4-e2b-it from 0f52c468598b to 9d1f0c3a77e2]
instances:
  description: For each instance by name what it is now, or would be in check mode.
  returned: success
  type: dict
  contains:
    release:
      description: Id of the current release, null when there is none.
      type: str
    previous:
      description: Id of the release that V(state=previous) would return to, null when there is none.
      type: str
    active_state:
      description: What systemd says about the unit. In check mode what it said before.
      type: str
    actions:
      description: What was done for this instance.
      type: list
      elements: str
  sample: {gemma-4-e2b-it: {release: 9d1f0c3a77e2, previous: 0f52c468598b, active_state: active, actions: []}}
restored:
  description: After a failure, whether everything was put back as it was before.
  returned: failure after a change had begun
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli, release_host
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import release as domain


def main():
    module = AnsibleModule(
        argument_spec=dict(
            state=dict(type="str", choices=["present", "previous", "absent", "started", "stopped"], default="present"),
            instances=dict(type="list", elements="dict", required=True),
            secrets=dict(type="dict", default={}, no_log=True),
            state_directory=dict(type="path", default=domain.STATE_DIRECTORY),
            unit_directory=dict(type="path", default=domain.UNIT_DIRECTORY),
            secret_directory=dict(type="path", default=domain.SECRET_DIRECTORY, no_log=False),
            keep=dict(type="int", default=3, no_log=False),
            engine=dict(type="str", choices=["docker", "podman"]),
            engine_path=dict(type="path"),
            systemctl=dict(type="str", default="systemctl"),
        ),
        supports_check_mode=True,
    )
    try:
        result = release_host.run(module.params, module.check_mode)
    except domain.ReleaseError as error:
        module.fail_json(msg=str(error), **error.details)
    except container_cli.CommandError as error:
        module.fail_json(msg=str(error), **error.result)
    except OSError as error:
        module.fail_json(msg="%s: %s" % (error.filename or "operating system", error.strerror))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
