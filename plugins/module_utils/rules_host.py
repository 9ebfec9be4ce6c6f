# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about the host itself: connection, Python, clock, systemd, container engine, other managers."""

from __future__ import annotations

import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils.rule import failed, numbers, passed, rule_in, unsure
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import INSTANCE_LABEL

RULES = []
rule = rule_in(RULES)
each = rule_in(RULES, each_instance=True)

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
GIB = 1024.0 ** 3
# Other software that hands out NPUs, by a word in the name or image of a running container.
MANAGERS = (
    ("ascend-device-plugin", "Kubernetes device plugin"), ("ascend-k8sdeviceplugin", "Kubernetes device plugin"), ("hami", "HAMi"),
    ("gpustack", "GPUStack"), ("clusterd", "MindCluster"), ("noded", "MindCluster"), ("ascend-operator", "MindCluster"),
    ("container-manager", "MindCluster"),
)


@rule("host.reachable", "The host answers over SSH", needs_survey=False,
      why="Nothing can be known of a host that does not answer; no other rule is judged for it.",
      source="the collection manages hosts over SSH only")
def reachable(view):
    expected = "a survey"
    if view.survey is None:
        yield unsure("no survey was taken", expected, "ansible-playbook playbooks/preflight.yml --limit %s" % view.host)
    elif view.survey.get("unreachable"):
        kind = view.survey.get("kind")
        yield failed(str(view.survey.get("error") or "unreachable"), "%s; it ended at: %s" % (expected, kind.replace("_", " ")) if kind else expected,
                     view.survey.get("remedy") or "ansible %s -m ansible.builtin.ping -vvv" % view.host)
    else:
        yield passed("answered", expected)


@rule("host.python", "Python on the host is new enough for the modules", bounds={"minimum": "3.7"},
      why="Modules run on the host with its own interpreter; older ones end in syntax errors.",
      source="this collection's modules are written for Python 3.7 and later")
def python(view):
    found, expected = view.read("host.python"), "%s or later" % view.bounds["minimum"]
    if numbers(found) < numbers(view.bounds["minimum"]):
        yield failed("Python %s" % found, expected, "install a newer Python and set ansible_python_interpreter for %s" % view.host)
    else:
        yield passed("Python %s" % found, expected)


@rule("host.clock", "The clock agrees with the controller's", bounds={"max_offset_s": 5},
      why="Leases, journals and reports order events of several hosts by wall clock.",
      source="bound of this collection: hosts under NTP stay within milliseconds")
def clock(view):
    expected = "at most %s s away from the controller" % view.bounds["max_offset_s"]
    if view.now_epoch_s is None:
        yield unsure("the controller's time at the survey is not known", expected, "run the survey again")
        return
    offset = view.read("host.epoch_s") - view.now_epoch_s
    # The clock was read at some moment of the survey, so its length is not held against the host.
    if abs(offset) > view.bounds["max_offset_s"] + (view.peek("elapsed_s") or 0):
        yield failed("%+.0f s" % offset, expected, "systemctl enable --now chronyd && chronyc makestep")
    else:
        yield passed("in step", expected)


@rule("host.systemd", "systemd runs and knows the settings that the units use", bounds={"minimum": 230},
      why="Instances are systemd units with start limits; a host without a running systemd cannot keep them.",
      source="systemd NEWS: StartLimitIntervalSec= in [Unit] since 230")
def systemd(view):
    state, version = view.read("host.systemd.state"), view.read("host.systemd.version")
    expected = "running or degraded, version %s or later" % view.bounds["minimum"]
    found = "systemd %s, %s" % (version, state)
    if numbers(version) < (view.bounds["minimum"],):
        yield failed(found, expected, "use a distribution with systemd %s or later" % view.bounds["minimum"])
    elif state in ("running", "degraded"):
        yield passed(found, expected)
    elif state in ("starting", "initializing", "unknown"):
        yield unsure(found, expected, "systemctl is-system-running --wait")
    else:
        yield failed(found, expected, "systemctl list-jobs; systemctl --failed")


@each("host.unit_masked", "No unit of ours is masked",
      why="A masked unit cannot be started; who masked it meant it, so it is never unmasked silently.",
      source="systemctl(1), mask")
def unit_masked(view, instance):
    unit = ((view.peek("instances") or {}).get(instance["name"]) or {}).get("unit") or {}
    if "masked" in (unit.get("unit_file_state"), unit.get("load_state")):
        yield failed("%s is masked" % instance["unit"], "not masked", "systemctl unmask %s" % instance["unit"])
    else:
        yield passed("%s is not masked" % instance["unit"], "not masked")


@each("instance.files_unchanged", "Nobody has edited the installed unit by hand",
      why="A hand edit keeps something alive that the inventory does not know; the next release would silently undo it.",
      source="each release keeps the unit that it put in force, and its id is a hash over it")
def files_unchanged(view, instance):
    found = (view.peek("instances") or {}).get(instance["name"]) or {}
    ours, in_force = (found.get("sha256") or {}).get(instance["unit"]), (found.get("unit") or {}).get("unit_sha256")
    expected = "as release %s put it there" % found["release"] if found.get("release") else "nothing of ours"
    remedy = ("put the edit into the inventory; to overwrite it: -e '{\"fleet_waivers\": [{\"rule\": \"instance.files_unchanged\", "
              "\"reason\": \"...\"}]}'")
    if found.get("whole") is False:
        yield failed("the files of release %s were edited" % found["release"], expected, "diff them with playbooks/plan.yml; " + remedy)
    elif ours and in_force and ours != in_force:
        yield failed("/etc/systemd/system/%s was edited" % instance["unit"], expected, "diff -u %s/instances/%s/current/%s "
                     "/etc/systemd/system/%s; %s" % (view.plan.get("state_directory"), instance["name"], instance["unit"], instance["unit"], remedy))
    else:
        yield passed("unchanged", expected)


@rule("host.architecture", "The machine is one that images are built for",
      why="An image of another architecture is refused by the engine or ends in 'exec format error'.",
      source="vllm-ascend images are published for linux/arm64 and linux/amd64")
def architecture(view):
    found, expected = view.read("host.architecture"), " or ".join(sorted(ARCHITECTURES))
    planned = view.plan.get("architecture")
    if found not in ARCHITECTURES:
        yield failed(found, expected, "take %s out of the inventory group" % view.host)
    elif planned not in (None, found):
        yield failed(found, "%s as planned" % planned, "make the plan again: ansible-playbook playbooks/plan.yml --limit %s" % view.host)
    else:
        yield passed(found, expected)


@rule("host.limits", "The kernel allows as many processes and threads as servers of all chips start",
      bounds={"pid_max": 32768, "threads_max": 32768},
      why="Each rank starts hundreds of threads on a many-core machine; at the limit they fail with \"can't start new thread\".",
      source="kernel default of pid_max; hosts with eight chips have up to 320 cores")
def limits(view):
    expected = ", ".join("kernel %s of at least %s" % (name, view.bounds[name]) for name in sorted(view.bounds))
    found = dict((name, view.read("host.limits.%s" % name)) for name in sorted(view.bounds))
    low = [name for name, value in found.items() if value < view.bounds[name]]
    shown = ", ".join("%s %s" % item for item in sorted(found.items()))
    if low:
        keys = {"pid_max": "kernel.pid_max", "threads_max": "kernel.threads-max"}
        yield failed(shown, expected, "sysctl -w " + " ".join("%s=%s" % (keys[name], view.bounds[name]) for name in sorted(low)))
    else:
        yield passed(shown, expected)


@rule("engine.present", "A container engine answers",
      why="Every instance is a container.", source="this collection drives docker or podman through their command line")
def engine_present(view):
    engine = view.read("engine")
    wanted = view.plan.get("engine")
    expected = "%s that answers" % (wanted or "docker or podman")
    if engine.get("error"):
        name = engine.get("name") or wanted or "docker"
        yield failed("%s: %s" % (name, engine["error"]), expected,
                     "podman info" if name == "podman" else "systemctl enable --now %s; %s info" % (name, name))
    elif not engine.get("name"):
        yield failed("no container engine", expected, "install docker 20.10.10 or later from the distribution's packages")
    elif wanted not in (None, engine["name"]):
        yield failed(engine["name"], expected, "install %s or set fleet_container_engine: %s" % (wanted, engine["name"]))
    else:
        yield passed("%s %s" % (engine["name"], engine.get("version")), expected)


@rule("engine.version", "The engine lets programs of the images start threads", after=("engine.present",),
      bounds={"docker": "20.10.10", "podman": "3.4", "containerd": "1.6"},
      why="The images carry glibc 2.35 or later; older engines answer its clone3 call with 'Operation not permitted', "
          "seen as OpenBLAS pthread_create failures or \"can't start new thread\". Privileged containers are not the answer.",
      source="vllm-ascend FAQ 21, moby change 42681, openEuler containerd pull request 195; podman 3.4 of Ubuntu 22.04 runs the same glibc")
def engine_version(view):
    name = view.read("engine.name")
    parts = [(name, view.read("engine.version"))]
    if view.peek("engine.containerd_version"):
        parts.append(("containerd", view.peek("engine.containerd_version")))
    for part, version in parts:
        minimum = view.bounds.get(part)
        found, expected = "%s %s" % (part, version), "%s %s or later" % (part, minimum)
        if minimum is None:
            yield unsure(found, "docker or podman", "set fleet_container_engine: docker")
        elif not numbers(version):
            yield unsure(found, expected, "%s version" % name)
        elif numbers(version) < numbers(minimum):
            yield failed(found, expected, "upgrade %s from the distribution's packages" % part)
        else:
            yield passed(found, expected)


@rule("engine.storage", "The engine's storage has room for the images", after=("engine.present",),
      bounds={"free_gib": 40, "reserve_gib": 2, "free_inodes": 200000},
      why="A pull that runs out of space leaves partial layers, and a full data root stops every container of the host.",
      source="no size is published; a derived vllm-ascend image of 24.5 GB is the nearest figure (kthena pull request 494)")
def engine_storage(view):
    root = view.read("engine.data_root")
    space = (view.peek("paths") or {}).get(root) or {}
    free, inodes = space.get("free_bytes"), space.get("free_inodes")
    present = set(d.rsplit("@", 1)[-1] for image in view.peek("images") or [] for d in image.get("digests") or [])
    missing = set(i.get("image_reference") or i.get("image") for i in view.instances
                  if str(i.get("image_reference")).rsplit("@", 1)[-1] not in present)
    need = view.bounds["free_gib" if missing else "reserve_gib"]
    expected = "%s GiB and %s inodes free in %s%s" % (need, view.bounds["free_inodes"], root, "" if missing else ", the images are there")
    if space.get("read_only"):
        yield failed("%s is mounted read-only" % root, expected,
                     "findmnt -T %s; dmesg | tail; mount -o remount,rw once the disk is sound" % root)
    elif free is None:
        yield unsure("free space of %s is not known" % root, expected, "df -h %s" % root)
    elif free < need * GIB:
        yield failed("%.1f GiB free in %s" % (free / GIB, root), expected,
                     "%s system df shows what may go; or tune engine.storage free_gib in fleet_rule_settings" % view.read("engine.name"))
    elif inodes is not None and inodes < view.bounds["free_inodes"]:
        yield failed("%d inodes free in %s" % (inodes, root), expected, "df -i %s; remove unused images: %s image ls" % (
            root, view.read("engine.name")))
    else:
        yield passed("%.0f GiB free in %s" % (free / GIB, root), expected)


@each("engine.container_name", "No foreign container has the name of one of ours",
      why="Two containers cannot have one name, and a container that we did not make is never removed.",
      source="containers of this collection carry the label " + INSTANCE_LABEL)
def container_name(view, instance):
    by_name = dict((c.get("name"), c) for c in view.read("containers"))
    name, found = instance["container"], by_name.get(instance["container"])
    expected = "no container %s, or one of ours" % name
    if found and (found.get("labels") or {}).get(INSTANCE_LABEL) != instance["name"]:
        yield failed("container %s (%s, image %s) is not ours" % (name, found.get("state"), found.get("image")), expected,
                     "%s rename %s %s-old, or give the instance another name" % (view.peek("engine.name") or "docker", name, name))
    else:
        yield passed("%s is free or ours" % name, expected)


@rule("host.foreign_manager", "No other software hands out the NPUs",
      why="Two managers give the same chip away twice; the second user fails with -8020 or breaks the first.",
      source="one NPU belongs to one container at a time (vllm-ascend issues 632, 2698)")
def foreign_manager(view):
    seen = ["Kubernetes device plugin (%s)" % path for path in view.peek("device_plugins") or []]
    for container in view.read("containers"):
        text = "%s %s" % (container.get("name"), container.get("image"))
        title = next((title for word, title in MANAGERS if re.search(r"(?<![a-z0-9])%s(?![a-z0-9])" % word, text.lower())), None)
        if title and container.get("state") == "running" and INSTANCE_LABEL not in (container.get("labels") or {}):
            seen.append("%s (container %s)" % (title, container.get("name")))
    if seen:
        yield failed("; ".join(sorted(seen)), "none",
                     "let one of them own this host: stop it, or take %s out of the inventory" % view.host)
    else:
        yield passed("none seen", "none")


@rule("host.selinux", "SELinux lets containers read what is mounted into them", after=("engine.present",),
      why="A denied mount shows as missing files inside the container. SELinux is never switched off for it.",
      source="container-selinux: containers of type container_t read only what is labelled for them")
def selinux(view):
    state = view.read("host.selinux")
    expected = "disabled, permissive, or an engine that does not confine"
    confines = view.peek("engine.name") == "podman" or any("selinux" in option for option in view.peek("engine.security_options") or [])
    if state == "enforcing" and confines:
        paths = sorted(set(instance["weights"]["path"] for instance in view.instances))
        yield unsure("enforcing, and %s confines containers" % view.peek("engine.name"), expected,
                     "chcon -R -t container_file_t %s; ausearch -m avc -ts recent after a start; then waive host.selinux with the reason"
                     % " ".join(paths))
    else:
        yield passed(state, expected)


@rule("host.proxies", "Requests to this host itself do not go through a proxy",
      why="curl and other probes of 127.0.0.1 follow http_proxy and report a server that answers as broken.",
      source="http_proxy, https_proxy, all_proxy and no_proxy in the environment and /etc/environment")
def proxies(view):
    found = view.read("host.proxies")
    used = [name for name in ("http_proxy", "all_proxy") if found.get(name)]
    spared = [item.strip() for item in (found.get("no_proxy") or "").split(",")]
    expected = "127.0.0.1 and localhost in no_proxy when there is a proxy"
    absent = [name for name in ("127.0.0.1", "localhost") if name not in spared and "*" not in spared]
    if used and absent:
        yield failed("%s is set, no_proxy lacks %s" % (", ".join(used), " and ".join(absent)), expected,
                     "set no_proxy=%s in /etc/environment" % ",".join([item for item in spared if item] + absent))
    else:
        yield passed("no proxy in the way", expected)
