#!/usr/bin/python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: job
short_description: Run long work on a host, detached from the connection
version_added: 0.1.0
author:
  - The vllm_ascend.fleet authors (@vllm-ascend)
description:
  - Starts a command as a transient systemd unit that outlives the connection, follows it until it ends, and stops it.
  - A job has an id that the caller chooses, and a folder below O(state_directory) with its log, its files and what it leaves behind. The
    command runs in that folder and finds it in the variable E(JOB_DIRECTORY). What it writes into the file C(progress) is how far it is, and JSON
    in C(result.json) is its result.
  - Starting is safe to repeat. A job that runs, or that has ended well with the same command, is not started again; one that failed, was stopped
    or was lost with its host is started again in the same folder, so that the command may go on where it was.
  - While V(followed), each step that the job makes is shown as a line, and a connection that drops is opened again.
options:
  id:
    description: Name of the job on its host. Small letters, digits, dots, dashes and underscores.
    type: str
    required: true
  state:
    description:
      - V(started) starts the job and returns at once.
      - V(followed) waits until it has ended and fails when it did not end well.
      - V(stopped) ends it; its folder stays.
      - V(absent) ends it and removes its folder.
    type: str
    choices: [started, followed, stopped, absent]
    default: started
  argv:
    description: The command and its arguments, without a shell. Required for V(state=started). Everybody on the host can read it, so no secrets.
    type: list
    elements: str
    default: []
  files:
    description: Texts that the command finds in its folder, by file name.
    type: dict
    default: {}
  environment:
    description: Variables of the command.
    type: dict
    default: {}
  secrets:
    description: Variables whose values must not be seen. They are hidden in the log, and their file, of mode 0600, goes when the job has ended.
    type: dict
    default: {}
  kind:
    description: At most one job of a kind runs on a host; a second one is refused and the first is named.
    type: str
  rerun:
    description: Start the job again although it has ended well.
    type: bool
    default: false
  timeout_s:
    description: Seconds after which systemd ends the job. 0 is never.
    type: int
    default: 0
  stop_timeout_s:
    description: Seconds that the command gets to clean up when it is asked to end.
    type: int
    default: 30
  wait_s:
    description: With V(state=followed), seconds after which to return although the job still runs. 0 waits for as long as it takes.
    type: float
    default: 0
  seen:
    description: With V(state=followed), return as soon as the progress differs from this. The action sets it to show each step.
    type: str
  patience_s:
    description: With V(state=followed), seconds during which a lost connection is opened again and again. Read by the action.
    type: int
    default: 300
  quiet:
    description: With V(state=followed), show no progress. Read by the action.
    type: bool
    default: false
  lines:
    description: How many of the log's last lines to return.
    type: int
    default: 20
  keep:
    description: How many ended jobs stay on the host when a new one is started.
    type: int
    default: 20
  state_directory:
    description: Where jobs are kept, in the folder C(jobs).
    type: path
    default: /var/lib/vllm-ascend-fleet
  systemctl:
    description: The C(systemctl) to use.
    type: str
    default: systemctl
  systemd_run:
    description: The C(systemd-run) to use.
    type: str
    default: systemd-run
extends_documentation_fragment:
  - vllm_ascend.fleet.attributes
"""

EXAMPLES = r"""
- name: Pull an image, whatever becomes of the connection
  vllm_ascend.fleet.job:
    id: pull-v0.18.0rc1
    kind: pull
    argv: [docker, pull, "registry.example.net:5000/ascend/vllm-ascend:v0.18.0rc1"]
    timeout_s: 7200

- name: Wait for it
  vllm_ascend.fleet.job:
    id: pull-v0.18.0rc1
    state: followed
"""

RETURN = r"""
job:
  description: What there is of the job. In check mode what there was before.
  returned: always
  type: dict
  contains:
    id:
      description: Its id.
      type: str
    state:
      description: One of C(absent), C(running), C(succeeded), C(failed), C(stopped), and C(lost) when host or unit went away under it.
      type: str
    rc:
      description: Exit status, null while there is none.
      type: int
    reason:
      description: Why it did not end well.
      type: str
    started_epoch_s:
      description: When it was started.
      type: float
    elapsed_s:
      description: How long it ran, or runs.
      type: float
    progress:
      description: How far it is, in its own words or by the last line of its log.
      type: str
    log:
      description: Last lines of its log, without secrets.
      type: list
      elements: str
    result:
      description: What it left in C(result.json).
      type: raw
    folder:
      description: Its folder on the host.
      type: str
  sample: {id: pull-v0.18.0rc1, state: running, rc: null, progress: "latest: Pulling from ascend/vllm-ascend"}
actions:
  description: What was done, or would be done in check mode.
  returned: always
  type: list
  elements: str
  sample: [start job pull-v0.18.0rc1]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import job as domain
from ansible_collections.vllm_ascend.fleet.plugins.module_utils import job_host


def main():
    module = AnsibleModule(
        argument_spec=dict(
            id=dict(type="str", required=True),
            state=dict(type="str", choices=["started", "followed", "stopped", "absent"], default="started"),
            argv=dict(type="list", elements="str", default=[]),
            files=dict(type="dict", default={}),
            environment=dict(type="dict", default={}),
            secrets=dict(type="dict", default={}, no_log=True),
            kind=dict(type="str"),
            rerun=dict(type="bool", default=False),
            timeout_s=dict(type="int", default=0),
            stop_timeout_s=dict(type="int", default=30),
            wait_s=dict(type="float", default=0),
            seen=dict(type="str"),
            patience_s=dict(type="int", default=300),
            quiet=dict(type="bool", default=False),
            lines=dict(type="int", default=20),
            keep=dict(type="int", default=20),
            state_directory=dict(type="path", default="/var/lib/vllm-ascend-fleet"),
            systemctl=dict(type="str", default="systemctl"),
            systemd_run=dict(type="str", default="systemd-run"),
        ),
        supports_check_mode=True,
    )
    try:
        result, problem = job_host.run(module.params, module.check_mode)
    except domain.JobError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg="job %s: %s: %s" % (module.params["id"], error.filename or "its folder", error.strerror or error))
    if problem:
        module.fail_json(msg=problem, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
