#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: npu_info
short_description: Survey an Ascend host in one round trip
version_added: 0.1.0
description:
  - Returns what decides whether vLLM-Ascend can run on this host. That is the chips as C(npu-smi info) prints them, joined with device
    nodes, driver, firmware and CANN versions, the container engine with its images and containers, the instances that this collection
    manages, ports, paths and weights.
  - It only looks. What could not be read is V(none) and has an entry in RV(survey.errors). Sources that disagree count as not read.
  - Needs nothing on the host but Python 3.7. It is meant to run as root; as another user it sees less and says so.
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
options:
  ports:
    description:
      - TCP ports to try with a plain bind, on IPv4 and IPv6.
    type: list
    elements: int
    default: []
  paths:
    description:
      - Paths to look at, for their kind, mode and the free space of their file system.
      - The engine's data root and O(state_directory) are always looked at. The engine's data folder is looked at as well.
    type: list
    elements: str
    default: []
  weights:
    description:
      - Directories of models. Their C(config.json) is returned, with the size of the weights and the size that the index promises.
    type: list
    elements: str
    default: []
  state_directory:
    description:
      - Where this collection keeps its releases.
    type: str
    default: /var/lib/vllm-ascend-fleet
  unit_prefix:
    description:
      - What the names of our units start with.
    type: str
    default: vllm-ascend-
  engine:
    description:
      - The container engine. V(auto) takes docker when its socket is there, then podman.
    type: str
    choices: [auto, docker, podman]
    default: auto
  engine_path:
    description:
      - Path of the engine's command.
      - Found in E(PATH) when not given.
    type: str
  npu_smi_path:
    description:
      - Path of C(npu-smi).
      - Found in E(PATH) and the usual directories when not given.
    type: str
  timeout_s:
    description:
      - Deadline for C(npu-smi info) in seconds. A run that hangs is killed with its process group at two thirds of it and tried once more
        in what remains.
    type: int
    default: 60
  deep:
    description:
      - Also run the slow sources C(npu-smi info -m), C(npu-smi info -t) and C(hccn_tool), one at a time within a second O(timeout_s).
    type: bool
    default: false
  texts:
    description: Also return the installed unit and environment of each instance.
    type: bool
    default: false
  nonce:
    description: With it the secret of each instance is told as a keyed hash, so that it can be compared and never leaves its file.
    type: str
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes.info
"""

EXAMPLES = r"""
- name: Survey the host
  vllm_ascend.fleet.npu_info:
    ports: [8000, 8001]
    paths: [/usr/local/dcmi, /var/lib/docker]
    weights: [/models/gemma-4-E2B-it]
  register: npu

- name: Show the chips that are not healthy
  ansible.builtin.debug:
    msg: "{{ npu.survey.chips | rejectattr('health', 'equalto', 'OK') }}"
"""

RETURN = r"""
survey:
  description:
    - The survey of one host. A key that could not be read holds V(none), and RV(survey.errors) says why.
  returned: always
  type: dict
  contains:
    schema:
      description: Version of this structure.
      type: int
      returned: always
      sample: 1
    elapsed_s:
      description: How long the survey took, in seconds.
      type: float
      returned: always
      sample: 0.41
    host:
      description: Names, kernel, boot, operating system, memory, systemd, SELinux, limits, proxies (without passwords) and clock.
      type: dict
      returned: always
    npu_smi:
      description:
        - How C(npu-smi info) ran and what it printed. C(info) is a reading, or has C(error), C(kind) and the raw C(excerpt).
        - A reading with C(incomplete) must not be trusted to be all there is. C(warnings) are what the tool says below its table.
      type: dict
      returned: always
    family:
      description: Family of the chips, one of 910, 910b, 910c, 310, 310b, 310p, 950.
      type: str
      returned: always
      sample: 910b
    chips:
      description: The chips in the order of the driver. Memory is in MiB; on chips with one memory it is that one.
      type: list
      elements: dict
      returned: always
      sample:
        - {index: 0, npu_id: 0, chip_id: 0, phy_id: null, name: 910B3, health: OK, bus_id: "0000:C1:00.0", power_w: 96.5, temp_c: 36,
           aicore_pct: 0, hbm_used_mib: 3347, hbm_total_mib: 65536, device: /dev/davinci0, device_present: true, numa_node: 6,
           processes: [], holders: []}
    driver:
      description: The driver's version file.
      type: dict
      returned: always
      sample: {version: 25.5.1, compatible_firmware: [["7.0.0", "8.9.9"]], path: /usr/local/Ascend/driver/version.info, error: null}
    network:
      description: The IPv4 address of each interface that is up, and the interface of the default route.
      type: dict
      returned: always
      sample: {interfaces: {eth0: 192.0.2.11}, default: eth0}
    firmware:
      description: The firmware's version file.
      type: dict
      returned: always
    install_info:
      description: C(/etc/ascend_install.info) as it is.
      type: dict
      returned: always
    cann:
      description: CANN toolkit and NNAL of the host, where installed (the images bring their own).
      type: dict
      returned: always
    devices:
      description: Ascend device nodes.
      type: list
      elements: str
      returned: always
      sample: [/dev/davinci0, /dev/davinci_manager, /dev/devmm_svm, /dev/hisi_hdc]
    device_nodes:
      description: Mode and owner of each of them.
      type: dict
      returned: always
      sample: {/dev/davinci0: {mode: "0660", uid: 0, gid: 1000, character: true}}
    engine:
      description: The container engine.
      type: dict
      returned: always
      sample: {name: docker, version: 26.1.4, api_version: "1.45", data_root: /var/lib/docker, cgroup_driver: systemd, error: null}
    images:
      description: Images of the engine. The architecture is known of the first forty, Ascend's first.
      type: list
      elements: dict
      returned: always
    containers:
      description: Containers of the engine, with the davinci devices that the running ones were given.
      type: list
      elements: dict
      returned: always
    device_plugins:
      description: Sockets of Kubernetes device plugins for Ascend; what they hand out is not ours to plan.
      type: list
      elements: str
      returned: always
      sample: [/var/lib/kubelet/device-plugins/davinci-mini.sock]
    instances:
      description: Our instances by name, with release, previous release, manifest and the state of the unit.
      type: dict
      returned: always
    ports:
      description: The asked ports by number as a string.
      type: dict
      returned: always
      sample: {"8000": {free: false, error: "IPv4: Address already in use", listener: {pid: 4711, command: python3, instance: null, container: null}}}
    paths:
      description: The asked paths.
      type: dict
      returned: always
    weights:
      description: The asked models.
      type: dict
      returned: always
    deep:
      description: Readings of the slow sources.
      type: dict
      returned: when O(deep=true)
    errors:
      description: What could not be read, and sources that disagree.
      type: list
      elements: dict
      returned: always
      sample: [{source: npu-smi info, error: "command-not-found: npu-smi: not found"}]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import survey_sources


def main():
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "int", "default": []},
            "paths": {"type": "list", "elements": "str", "default": []},
            "weights": {"type": "list", "elements": "str", "default": []},
            "state_directory": {"type": "str", "default": "/var/lib/vllm-ascend-fleet"},
            "unit_prefix": {"type": "str", "default": "vllm-ascend-"},
            "engine": {"type": "str", "choices": ["auto", "docker", "podman"], "default": "auto"},
            "engine_path": {"type": "str"},
            "npu_smi_path": {"type": "str"},
            "timeout_s": {"type": "int", "default": 60},
            "deep": {"type": "bool", "default": False},
            "texts": {"type": "bool", "default": False},
            "nonce": {"type": "str"},
        },
        supports_check_mode=True,
    )
    wrong = [port for port in module.params["ports"] if not 0 < port < 65536]
    if wrong:
        module.fail_json(msg="ports: %s is not a TCP port; give numbers from 1 to 65535" % wrong[0])
    if module.params["timeout_s"] < 1:
        module.fail_json(msg="timeout_s: %d is no deadline; give at least 1 second" % module.params["timeout_s"])
    module.exit_json(**survey_sources.answer(module.params))


if __name__ == "__main__":
    main()
