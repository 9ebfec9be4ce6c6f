# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine in memory, with the methods of container_cli.Engine that modules call."""

from __future__ import annotations

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli

QUIET = {"rc": 0, "stdout": "", "stderr": "", "timed_out": False}


class FakeEngine:
    """``images``: reference -> image; ``remote``: reference -> image that a pull brings, or an error text."""

    name = "docker"

    def __init__(self, images=None, remote=None):
        self.images, self.remote = dict(images or {}), dict(remote or {})
        self.calls, self.build = [], dict(QUIET)
        self.cann = dict(QUIET, stdout='vllm-ascend-fleet: {"cann": "8.5.1"}\n')
        self.on_push = self.on_build = self.labelled = None

    def run(self, args, timeout_s=60.0, stdin=None, check=True, credentials=False, silence_s=None, least_bytes_per_s=0.0, tell=None):
        self.calls.append(list(args))
        verb = args[0]
        if verb == "pull":
            answer = self.remote.get(args[1], "manifest unknown")
            if isinstance(answer, str):
                raise container_cli.CommandError("docker pull failed: " + answer, dict(QUIET, cmd=args, rc=1, stderr=answer))
            self.images[args[1]] = answer
        elif verb == "rmi":
            for reference in args[1:]:
                self.images.pop(reference, None)
        elif verb == "tag":
            self.images[args[2]] = self.images[args[1]]
        elif verb == "run":
            return self.cann
        elif verb == "build":
            if args[-1].endswith("/label"):
                with open(args[-1] + "/Dockerfile") as stream:
                    self.labelled = stream.read()
                return dict(QUIET)
            if self.on_build:
                self.on_build(args)
            return self.build
        return dict(QUIET)

    def push(self, reference, timeout_s, folder):
        self.calls.append(["push", reference])
        return self.on_push(reference)

    def image(self, reference):
        return self.images.get(reference)

    def image_with_digest(self, digest):
        return next((each for each in sorted(self.images) if each.endswith("@" + digest)), None)

    def containers_of(self, reference):
        return []

    def insecure_registries(self):
        return lambda host: True

    def verbs(self):
        return [call[0] for call in self.calls]


def image(digest, architecture="amd64", name="r/n", identity="sha256:1"):
    return {"id": identity, "digests": [name + "@" + digest], "tags": [], "labels": {}, "architecture": architecture}
