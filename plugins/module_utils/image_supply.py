# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image by digest onto this host, through the mirrors that tell the truth. This file does I/O."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli, registry

ENGINE_OPTIONS = dict(
    engine=dict(type="str", choices=list(container_cli.ENGINES)), engine_path=dict(type="path"),
    registry_username=dict(type="str"), registry_password=dict(type="str", no_log=True), timeout_s=dict(type="int", default=7200),
)
# Of module image, which its action reads too.
ARGUMENTS = dict(
    ENGINE_OPTIONS, reference=dict(type="str", required=True), digest=dict(type="str"), mirrors=dict(type="list", elements="str", default=[]),
    architecture=dict(type="str"), state=dict(type="str", choices=["present", "absent"], default="present"),
    state_directory=dict(type="path", default="/var/lib/vllm-ascend-fleet"), systemctl=dict(type="str", default="systemctl"),
    systemd_run=dict(type="str", default="systemd-run"), patience_s=dict(type="int", default=300), bundle=dict(
        type="dict", options=dict(folder=dict(type="path", required=True), blobs=dict(type="dict", required=True))),
)
TOGETHER = [("registry_username", "registry_password")]
ASK_S = 30.0
LEAST_PULL_S = 30.0
SILENCE_S = 120.0
# A mirror that is so many times slower than the next one showed itself is given up.
CRAWL = 10.0


class SupplyError(Exception):
    """The image cannot be had; ``facts`` are further results for the user (liars, actions)."""

    def __init__(self, message, **facts):
        super().__init__(message)
        self.facts = facts


def engine_for(options, private_dir, reference):
    """The engine that a task's options name, with credentials for the registry of ``reference`` when there are any."""
    name, path = container_cli.find_engine(options["engine"], options["engine_path"])
    if not options["registry_username"]:
        return container_cli.Engine(name, path)
    inherit = {}
    configured = os.path.join(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"), "config.json")
    if os.path.exists(configured):
        try:
            with open(configured) as stream:
                inherit = json.load(stream)
        except ValueError as error:
            raise SupplyError("%s is not JSON (%s); repair or remove it" % (configured, error))
    container_cli.write_credentials(private_dir, registry.parse_reference(reference)["registry"], options["registry_username"],
                                    options["registry_password"], inherit)
    return container_cli.Engine(name, path, private_dir)


def credentials_for(options, reference):
    """Credentials by registry, as :func:`registry.ask_all` wants them: only the registry of ``reference`` gets any."""
    if not options["registry_username"]:
        return {}
    return {registry.parse_reference(reference)["registry"]: (options["registry_username"], options["registry_password"])}


def client_for(options, reference, deadline_s, insecure, credentials):
    """``(client, repository, selector)`` to ask about a reference."""
    parts = registry.parse_reference(reference)
    username, password = credentials.get(parts["registry"], (None, None))
    client = registry.Client(parts["registry"], deadline_s, username, password, insecure(parts["registry"]))
    return client, parts["repository"], parts["digest"] or parts["tag"] or "latest"


def empty():
    """The result of module ``image`` before anything is known."""
    return {"changed": False, "id": None, "digest": None, "local_reference": None, "mirror": None, "liars": [], "note": "", "actions": []}


def warnings(result):
    """What a user should hear of a result although it went well."""
    return ["mirror put aside: %s announces %s instead of %s" % (liar["reference"], liar["digest"], result.get("base_digest") or result.get("digest"))
            for liar in result.get("liars") or ()]


def answer(options, check_mode, folder, teller=None):
    """:func:`ensure` as a result that also tells of a failure. Credentials lie in a folder below ``folder`` meanwhile."""
    started, result = time.monotonic(), empty()
    private = tempfile.mkdtemp(prefix="vllm-ascend-fleet-", dir=folder)
    try:
        engine = engine_for(options, private, options["reference"])
        result.update(ensure(engine, options, check_mode, started + options["timeout_s"], teller))
    except SupplyError as error:
        result.update(error.facts, failed=True, msg=str(error))
    except container_cli.CommandError as error:
        result.update({key: error.result[key] for key in ("cmd", "rc", "stdout", "stderr")}, failed=True, msg=str(error))
    except registry.RegistryError as error:
        result.update(failed=True, msg=str(error), status=error.status)
    finally:
        shutil.rmtree(private)
    result["elapsed_s"] = round(time.monotonic() - started, 3)
    result["diff"] = {"before": {"image": None if result["changed"] else options["reference"]}, "after": {"image": options["reference"]}}
    return result


def wanted_digest(options):
    """The digest that the options name, or None."""
    inner = registry.parse_reference(options["reference"])["digest"]
    if inner and options["digest"] and inner != options["digest"]:
        raise SupplyError("reference %s and digest %s contradict each other; give one of them" % (options["reference"], options["digest"]))
    return options["digest"] or inner


def present(engine, options):
    """The result when the wanted digest is here already, else None."""
    digest = wanted_digest(options)
    name = present_as(engine, options["reference"], digest) if digest else None
    if not name:
        return None
    found = engine.image(name)
    refuse_architecture(found["architecture"], options["architecture"], name, "already on this host")
    return {"changed": False, "id": found["id"], "digest": digest, "local_reference": name}


def ensure(engine, options, check_mode, end, teller=None, credentials=None):
    """Have ``options['reference']`` here. ``end`` is a time of :func:`time.monotonic`. Returns the result of module ``image``.

    ``teller``: begin(source, sizes) and progress(layers, whole) are called as a pull goes on. ``credentials``: by registry, where the options'
    are not those of the reference's. Raises SupplyError, CommandError or RegistryError.
    """
    reference, digest, sizes = options["reference"], wanted_digest(options), {}
    had = present(engine, options)
    if had:
        return had
    insecure, credentials = engine.insecure_registries(), credentials_for(options, reference) if credentials is None else credentials
    choice = registry.select(options["mirrors"] or [reference], digest, reference, deadline_s=min(ASK_S, max(1.0, end - time.monotonic())),
                             credentials=credentials, insecure=insecure)
    if not choice["trusted"]:
        raise SupplyError(choice["note"], liars=choice["liars"])
    result = {"changed": True, "digest": choice["digest"], "liars": choice["liars"], "note": choice["note"]}
    if not digest:
        name = present_as(engine, reference, choice["digest"])
        if name:
            return dict(result, changed=False, id=engine.image(name)["id"], local_reference=name)
    sources = [registry.by_digest(each, choice["digest"]) for each in choice["trusted"]]
    if options["architecture"]:
        client, repository, selector = client_for(options, sources[0], ASK_S, insecure, credentials)
        offered = client.image(repository, selector, options["architecture"])
        sizes = offered["sizes"]
        if options["architecture"] not in offered["architectures"]:
            raise SupplyError("image %s is for %s, this host needs %s; a copy of one architecture only was pushed, copy the whole index"
                              % (sources[0], ", ".join(map(str, offered["architectures"])), options["architecture"]), liars=choice["liars"])
    if check_mode:
        return dict(result, actions=["pull " + sources[0]], local_reference=sources[0])
    speeds = {}
    if len(sources) > 1:
        speeds = registry.measure(sources, options["architecture"], credentials=credentials, insecure=insecure)
        sources = registry.by_speed(sources, speeds)
        result["speeds"] = [{"reference": each, "bytes_per_s": speeds[each] and int(speeds[each])} for each in sources]
    source, failures = pull_first(engine, sources, end, speeds, teller, sizes)
    found = engine.image(source)
    try:
        refuse_architecture(found["architecture"], options["architecture"], source, "pulled")
    except SupplyError:
        engine.run(["rmi", source])
        raise
    if not any(each.endswith("@" + choice["digest"]) for each in found["digests"]):
        raise SupplyError("%s was pulled, but the engine knows it as %s and not as %s" % (source, ", ".join(found["digests"]) or "nothing", choice["digest"]))
    return dict(result, id=found["id"], mirror=source, local_reference=source, actions=["pull " + source],
                note="; ".join(part for part in [choice["note"]] + failures if part))


def present_as(engine, reference, digest):
    """Name by digest under which the image is here: that of the reference if the engine resolves it, else any other, else None."""
    own = registry.by_digest(reference, digest)
    return own if engine.image(own) else engine.image_with_digest(digest)


def refuse_architecture(found, wanted, reference, how):
    """SupplyError when an image is for another architecture."""
    if wanted and found and found != wanted:
        raise SupplyError("image %s, %s, is for %s, this host needs %s" % (reference, how, found, wanted))


def pull_first(engine, sources, end, speeds, teller=None, sizes=None):
    """Pull from the first source that delivers. Each gets half of the time left and no long silence, the last one all of the time.

    ``speeds``: {source: bytes per second or None} as measured; one that crawls is given up for the next one.
    Returns ``(source, [what went wrong before it])``; SupplyError naming every failure when none delivers.
    """
    failures = []
    for number, source in enumerate(sources):
        left = end - time.monotonic()
        if left <= 0:
            failures.append("%s: no time left" % source)
            break
        last = number == len(sources) - 1
        if teller:
            teller.begin(source, sizes or {})
        try:
            engine.run(
                ["pull", source],
                tell=teller.progress if teller else None,
                timeout_s=left if last else min(left, max(LEAST_PULL_S, left / 2)),
                credentials=True,
                silence_s=None if last else SILENCE_S,
                least_bytes_per_s=0.0 if last else (speeds.get(sources[number + 1]) or 0.0) / CRAWL,
            )
            return source, failures
        except container_cli.CommandError as error:
            failures.append("%s: %s" % (source, error))
    raise SupplyError("no mirror delivered the image: %s" % "; ".join(failures))
