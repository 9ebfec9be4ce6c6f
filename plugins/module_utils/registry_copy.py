# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image from one of its mirrors into the fleet's registry, blob by blob, with no engine between. This file does I/O."""

from __future__ import annotations

import hashlib
import http.client
import json
import queue
import threading
import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import registry
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.image_supply import ASK_S, SupplyError

BLOCK = 16 << 20
ROUNDS = 3


class Damaged(Exception):
    """What came does not hash to the digest."""


def nobody(_registry):
    """With which registries plain HTTP is spoken."""
    return False


def ahead(blocks):
    """The same blocks; the next one is fetched while the last one is sent, so that the slower side never waits for the other."""
    waiting, over = queue.Queue(maxsize=1), threading.Event()

    def fetch():
        last = None
        try:
            for block in blocks:
                waiting.put((block, None))
                if over.is_set():
                    blocks.close()
                    return
        except Exception as error:
            last = error
        waiting.put((None, last))

    threading.Thread(target=fetch, daemon=True).start()
    try:
        while True:
            block, error = waiting.get()
            if error is not None:
                raise error
            if block is None:
                return
            yield block
    finally:
        over.set()
        if not waiting.empty():
            waiting.get_nowait()


class Copy:
    """One run of module ``registry_copy``; ``options`` are the module's."""

    def __init__(self, options, check_mode, insecure=nobody, clock=time.monotonic, sleep=time.sleep):
        self.options, self.check_mode, self.insecure, self.clock, self.sleep = options, check_mode, insecure, clock, sleep
        self.end = clock() + options["timeout_s"]
        self.parts = registry.parse_reference(options["target"])
        self.result = {"changed": False, "origin": options["origin"], "target": options["target"], "digest": None, "base_digest": options["digest"],
                       "liars": [], "note": "", "bytes": 0, "actions": []}

    def client(self, name):
        """One of a registry; the credentials go to that of the target alone."""
        given = (self.options["registry_username"], self.options["registry_password"]) if name == self.parts["registry"] else (None, None)
        return registry.Client(name, max(1.0, self.end - self.clock()), given[0], given[1], self.insecure(name), sleep=self.sleep, clock=self.clock)

    def run(self):
        """Returns the module's result. Raises SupplyError or RegistryError."""
        options, target = self.options, self.client(self.parts["registry"])
        there = self.there(target)
        if there and there == options["known"] and options["digest"]:
            # Proven by the run that brought it; no mirror has to answer.
            return dict(self.result, digest=there)
        mirrors = options["mirrors"] or registry.mirror_references(
            options["origin"], (options["registries"].get(registry.parse_reference(options["origin"])["registry"]) or {}).get("mirrors"))
        choice = registry.select(mirrors, options["digest"], options["origin"], deadline_s=min(ASK_S, max(1.0, self.end - self.clock())),
                                 insecure=self.insecure)
        if not choice["trusted"]:
            raise SupplyError(choice["note"], liars=choice["liars"])
        self.result.update(base_digest=choice["digest"], liars=choice["liars"], note="; ".join(filter(None, [self.result["note"], choice["note"]])))
        sources = [registry.by_digest(each, choice["digest"]) for each in choice["trusted"]]
        digest, body, manifest = self.manifest(sources[0])
        self.result["digest"] = digest
        if there == digest:
            return self.result
        self.result.update(changed=True, actions=["copy %s to %s" % (sources[0], options["target"])])
        if self.check_mode:
            return dict(self.result, digest=None)
        wanted = dict((each["digest"], each.get("size") or 0) for each in [manifest["config"]] + manifest["layers"])
        lacking = [each for each in wanted if not target.has_blob(self.parts["repository"], each)]
        if lacking and len(sources) > 1:
            sources = registry.by_speed(sources, registry.measure(sources, options["architecture"], insecure=self.insecure))
        speakers = [(each, self.client(registry.parse_reference(each)["registry"])) for each in sources]
        for each in lacking:
            self.bring(target, speakers, each)
            self.result["bytes"] += wanted[each]
        target.put_manifest(self.parts["repository"], self.parts["tag"], body, manifest.get("mediaType") or registry.MANIFEST_TYPES[0])
        if self.there(target) != digest:
            raise SupplyError("%s was copied, but the registry does not hold %s there; is something else writing?" % (options["target"], digest))
        return self.result

    def there(self, target):
        """Digest that the target has now, or None."""
        try:
            return target.digest(self.parts["repository"], self.parts["tag"])
        except registry.RegistryError as error:
            if error.status == 404:
                return None
            if self.check_mode and error.status is None:
                # The run that this one foretells would have set it up.
                self.result["note"] = "the fleet's registry %s does not answer and is taken for an empty one" % self.parts["registry"]
                return None
            raise SupplyError("the fleet's registry does not answer for %s: %s" % (self.options["target"], error))

    def manifest(self, source):
        """``(digest, bytes, manifest)`` of the image for our architecture; each hashes to what the one before it, or the pin, says."""
        parts, wanted = registry.parse_reference(source), self.options["architecture"]
        client = self.client(parts["registry"])
        digest = parts["digest"]
        body = client.manifest_text(parts["repository"], digest)
        manifest = json.loads(body.decode("utf-8"))
        if "manifests" in manifest:
            digest = registry.digest_for(manifest, wanted)
            if digest is None:
                raise SupplyError("image %s is for %s, this fleet needs %s" % (source, ", ".join(registry.architectures_of(manifest)) or "nothing", wanted))
            body = client.manifest_text(parts["repository"], digest)
            manifest = json.loads(body.decode("utf-8"))
        elif client.image(parts["repository"], digest)["architecture"] != wanted:
            raise SupplyError("image %s is not for %s, which this fleet needs; a copy of one architecture only was pushed" % (source, wanted))
        if not (manifest.get("config") or {}).get("digest") or not isinstance(manifest.get("layers"), list):
            raise SupplyError("image %s has a manifest of an unknown kind (schema %s)" % (source, manifest.get("schemaVersion")))
        return digest, body, manifest

    def bring(self, target, speakers, digest):
        """Have one blob in the target. Who gave bytes that do not hash to it gives none again."""
        left = list(speakers)
        while left:
            used = []
            try:
                target.upload(self.parts["repository"], digest, ahead(self.blocks(left, digest, used)))
                return
            except Damaged:
                self.note("%s sent %s damaged" % (" and ".join(used), digest))
                left = [each for each in left if each[0] not in used]
        raise SupplyError("no mirror delivered %s: %s" % (digest, self.result["note"]))

    def blocks(self, speakers, digest, used):
        """The bytes of a blob, from the first that delivers; where one breaks off, the next one goes on."""
        value, came, problem = hashlib.sha256(), 0, "none was asked"
        for attempt in range(ROUNDS):
            for source, client in speakers:
                if self.clock() > self.end:
                    raise SupplyError("%s was not copied in time; raise timeout_s, the next run goes on where this one ended" % self.options["target"])
                try:
                    with client.blob(registry.parse_reference(source)["repository"], digest, came) as answer:
                        length = answer.headers.get("Content-Length")
                        whole = came + int(length) if length and (not came or answer.status == 206) else None
                        for block in iter(lambda opened=answer: opened.read(BLOCK), b""):
                            if source not in used:
                                used.append(source)
                            value.update(block)
                            came += len(block)
                            yield block
                    if whole is not None and came < whole:
                        raise registry.RegistryError("it broke off after %d of %d bytes" % (came, whole))
                except (registry.RegistryError, OSError, http.client.HTTPException) as error:
                    problem = "%s: %s" % (source, error)
                    self.note(problem)
                    continue
                if "sha256:" + value.hexdigest() != digest:
                    raise Damaged
                return
            self.sleep(registry.retry_delay(attempt, None, 0.5))
        raise SupplyError("no mirror delivered %s: %s" % (digest, problem))

    def note(self, sentence):
        """Add what went wrong on the way to success."""
        self.result["note"] = "; ".join(each for each in (self.result["note"], sentence) if each)
