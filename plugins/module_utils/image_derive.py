# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The derived image: base by digest, patches, pins, proof, labels, push. The first part is pure, :class:`Derivation` does I/O."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import time
import urllib.parse
import uuid

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import attestation, container_cli, image_build, image_supply, patch_series, registry
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.image_supply import SupplyError

LABEL = "vllm-ascend-fleet."
WORK = "/tmp/vllm-ascend-fleet"


# --- pure -----------------------------------------------------------------------------------------------------------


def labels(patch_set, base_digest, cann):
    """The labels of a derived image; values are text."""
    wanted = {"patch-set": patch_set["id"], "base-digest": base_digest, "patches": ",".join(each["sha256"] for each in patch_set["patches"])}
    if cann:
        wanted["cann"] = cann
    return {LABEL + key: value for key, value in wanted.items()}


def is_wanted(found, patch_set, base_digest):
    """Whether an image with these labels is the one that the set gives on that base (any base when None)."""
    wanted = labels(patch_set, base_digest, None)
    if base_digest is None:
        wanted.pop(LABEL + "base-digest")
    return all((found or {}).get(key) == value for key, value in wanted.items())


def dockerfile(base, image_labels, build_id):
    """Text of a Dockerfile that the classic builder, BuildKit and buildah all understand.

    The labels come first, so that what a failed build leaves behind can be found; ENTRYPOINT, CMD, WORKDIR and USER are the base's.
    """
    pairs = sorted(image_labels.items()) + [(LABEL + "build", build_id)]
    return "\n".join([
        "FROM " + base,
        "LABEL " + " ".join('"%s"="%s"' % pair for pair in pairs),
        "COPY context %s" % WORK,
        'RUN ["python3", "%s/image_build.py", "build"]' % WORK,
        'RUN ["rm", "-rf", "%s"]' % WORK,
        "",
    ])


def recipe(patch_set, base_digest, wheelhouse, index_url):
    """What ``image_build.py`` reads inside of the image."""
    python = patch_set.get("python") or {}
    return {
        "id": patch_set["id"],
        "name": patch_set["name"],
        "base_digest": base_digest,
        "wheelhouse": wheelhouse,
        "index_url": index_url,
        "record": attestation.RECORD,
        "patches": [
            {"file": each["file"], "tree": each["tree"], "sha256": each["sha256"], "stored": stored_name(number, each["file"])}
            for number, each in enumerate(patch_set["patches"])
        ],
        "pins": list(python.get("pins") or []),
        "constraints": list(python.get("constraints") or []),
    }


def stored_name(number, file):
    """File name of a patch in transit; the name itself stays last, it is what a message shows."""
    return "%04d/%s" % (number, file)


def marked(text):
    """The JSON that ``image_build.py`` printed, dug out of a builder's output; None when it printed none."""
    for line in reversed(text.splitlines()):
        at = line.find(image_build.MARK)
        if at >= 0:
            try:
                return json.loads(line[at + len(image_build.MARK):])
            except ValueError:
                return None
    return None


def source_of(module):
    """Source text of one of our module_utils, also when it sits in ansible's zip on a host."""
    source = module.__loader__.get_source(module.__name__)
    # Ansible's own loader of collections gives bytes.
    return source.decode("utf-8") if isinstance(source, bytes) else source


# --- I/O ------------------------------------------------------------------------------------------------------------


class Derivation:
    """One run of module ``derived_image``. ``private`` is a folder of mode 0700 that the caller removes."""

    def __init__(self, engine, options, private, check_mode, end):
        self.engine, self.options, self.private, self.check_mode, self.end = engine, options, private, check_mode, end
        self.patch_set = options["patch_set"]
        self.target = options["target"]
        self.credentials = image_supply.credentials_for(options, self.target)
        self.insecure = engine.insecure_registries()
        self.result = {
            "changed": False, "origin": options["origin"], "target": self.target, "digest": None, "base_digest": options["digest"], "cann": None,
            "patches": {each["file"]: each["sha256"] for each in (self.patch_set or {}).get("patches", [])}, "liars": [], "note": "", "actions": [],
        }

    def left(self):
        """Seconds to the deadline."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise SupplyError("%s was not made in time; raise timeout_s" % self.target)
        return left

    def run(self):
        """Returns the module's result."""
        index_url = self.options["pip_index_url"]
        if index_url and urllib.parse.urlsplit(index_url).username:
            raise SupplyError("pip_index_url carries credentials, which would stay in the image; use a wheelhouse, or an index without them")
        published = self.published()
        if published and self.patch_set and is_wanted(published["labels"], self.patch_set, self.options["digest"]):
            self.result.update(digest=published["digest"], base_digest=published["labels"].get(LABEL + "base-digest"),
                               cann=published["labels"].get(LABEL + "cann"))
            return self.result
        mirrors = self.options["mirrors"] or registry.mirror_references(self.options["origin"], self.mirrors_of_origin())
        base = dict(self.options, reference=self.options["origin"], mirrors=mirrors)
        if not self.patch_set and published and self.is_copy(published, base):
            self.result.update(digest=published["digest"])
            return self.result
        if self.check_mode:
            had = self.have_base(base)
            self.result.update(changed=True, base_digest=had["digest"], liars=had.get("liars", []), note=had.get("note", ""))
            self.result["actions"] = had.get("actions", []) + (["build " + self.target] if self.patch_set else []) + ["push " + self.target]
            return self.result
        if self.patch_set and not self.options["staged"]:
            # The action plugin asks first, and brings the files only when they are needed.
            return dict(self.result, changed=True, needs_files=True)
        had = self.have_base(base)
        self.result.update(changed=True, base_digest=had["digest"], liars=had.get("liars", []), note=had.get("note", ""),
                           actions=had.get("actions", []))
        if self.patch_set:
            self.build(had["local_reference"])
        else:
            self.result["cann"] = self.cann(had["local_reference"])
            self.engine.run(["tag", had["local_reference"], self.target])
        self.push()
        return self.result

    def have_base(self, base):
        """The base image here: over the LAN when the fleet's registry has it, else through the mirrors. Returns the result of module ``image``."""
        nearby, missed = self.options["nearby"], ""
        if nearby and self.options["digest"]:
            try:
                had = image_supply.ensure(self.engine, dict(base, reference=nearby, digest=None, mirrors=[]), self.check_mode, self.end,
                                          credentials=self.credentials)
                return dict(had, digest=self.options["digest"])
            except (SupplyError, container_cli.CommandError, registry.RegistryError) as error:
                missed = "%s: %s" % (nearby, error)
        had = image_supply.ensure(self.engine, base, self.check_mode, self.end, credentials=self.credentials)
        return dict(had, note="; ".join(each for each in (had.get("note", ""), missed) if each))

    def mirrors_of_origin(self):
        """The catalogue's mirrors of the registry that the base image comes from."""
        entry = self.options["registries"].get(registry.parse_reference(self.options["origin"])["registry"]) or {}
        return entry.get("mirrors")

    def published(self):
        """What the registry holds under the target, or None."""
        client, repository, selector = image_supply.client_for(self.options, self.target, min(60.0, self.left()), self.insecure, self.credentials)
        try:
            return client.image(repository, selector, self.options["architecture"])
        except registry.RegistryError as error:
            if error.status == 404:
                return None
            raise SupplyError("the fleet's registry does not answer for %s: %s" % (self.target, error))

    def is_copy(self, published, base):
        """Whether the target holds the very image of the base; sets ``base_digest``."""
        choice = registry.select(base["mirrors"], base["digest"], base["origin"], deadline_s=min(image_supply.ASK_S, self.left()),
                                 credentials=self.credentials, insecure=self.insecure)
        if not choice["trusted"]:
            if not base["digest"]:
                raise SupplyError(choice["note"], liars=choice["liars"])
            return False
        self.result.update(base_digest=choice["digest"], liars=choice["liars"], note=choice["note"])
        source = registry.by_digest(choice["trusted"][0], choice["digest"])
        client, repository, selector = image_supply.client_for(self.options, source, min(60.0, self.left()), self.insecure, self.credentials)
        return client.image(repository, selector, self.options["architecture"])["config_digest"] == published["config_digest"]

    def cann(self, base):
        """CANN version of a local image, read by our own script inside of it, with no network."""
        done = self.engine.run(["run", "--rm", "--interactive", "--network", "none", "--entrypoint", "python3", base, "-", "cann"],
                               timeout_s=min(300.0, self.left()), stdin=source_of(image_build), check=False)
        answer = marked(done["stdout"])
        if done["rc"] != 0 or answer is None:
            raise SupplyError("the base image %s cannot run python3: %s" % (base, container_cli.last_line(done["stderr"]) or "no output"))
        return answer.get("cann")

    def build(self, base):
        """Build the image under the target's name; on failure remove what the builder left."""
        options, build_id = self.options, uuid.uuid4().hex
        self.result["cann"] = self.cann(base)
        folder = os.path.join(self.private, "build")
        context = os.path.join(folder, "context")
        os.makedirs(context)
        wheels = os.path.join(options["staged"], "wheelhouse.tar")
        has_wheels = os.path.exists(wheels)
        shutil.copytree(os.path.join(options["staged"], "patches"), os.path.join(context, "patches"))
        if has_wheels:
            with tarfile.open(wheels) as archive:
                for member in archive.getmembers():
                    if not member.isfile() or os.path.basename(member.name) != member.name:
                        raise SupplyError("the wheelhouse archive holds %s, which is no plain file" % member.name)
                    with open(os.path.join(make(context, "wheelhouse"), member.name), "wb") as target:
                        shutil.copyfileobj(archive.extractfile(member), target)
        content = recipe(self.patch_set, self.result["base_digest"], has_wheels, options["pip_index_url"])
        for name, text in (("image_build.py", source_of(image_build)), ("patch_series.py", source_of(patch_series)), ("recipe.json", json.dumps(content))):
            write(os.path.join(context, name), text)
        image_labels = labels(self.patch_set, self.result["base_digest"], self.result["cann"])
        write(os.path.join(folder, "Dockerfile"), dockerfile(base, image_labels, build_id))
        command = ["build", "--force-rm", "--no-cache", "--tag", self.target]
        if has_wheels or not content["pins"]:
            command += ["--network", "none"]
        if self.engine.name == "podman":
            # Docker's format, or labels and entry point would depend on the engine; no layers, so nothing is left by a failure.
            command += ["--format", "docker", "--layers=false"]
        done = self.engine.run(command + [folder], timeout_s=self.left(), check=False)
        answer = marked(done["stdout"] + "\n" + done["stderr"])
        if done["rc"] != 0 or answer is None or "error" in answer:
            self.discard(build_id)
            reason = (answer or {}).get("error") or container_cli.last_line(done["stderr"]) or "it ended with code %s" % done["rc"]
            if done["timed_out"]:
                reason = "it did not end in time; raise timeout_s"
            raise SupplyError("%s was not built: %s" % (self.target, reason), liars=self.result["liars"])
        self.label(build_id, attestation.RECORD_LABEL, answer["record_sha256"])
        self.result["verdicts"] = answer["verdicts"]
        self.result["actions"].append("build " + self.target)
        shutil.rmtree(folder)

    def label(self, build_id, name, value):
        """Put a label on the target that is only known once it is built; its layers stay as they are."""
        folder = make(self.private, "label")
        write(os.path.join(folder, "Dockerfile"), 'FROM %s\nLABEL "%s"="%s"\n' % (self.target, name, value))
        command = ["build", "--no-cache", "--network", "none", "--tag", self.target]
        if self.engine.name == "podman":
            command += ["--format", "docker"]
        done = self.engine.run(command + [folder], timeout_s=self.left(), check=False)
        if done["rc"] != 0:
            self.engine.run(["rmi", self.target], check=False)
            raise SupplyError("%s was built, but not labelled: %s" % (self.target, container_cli.last_line(done["stderr"]) or "exit %s" % done["rc"]),
                              liars=self.result["liars"])
        self.discard(build_id)

    def discard(self, build_id):
        """Remove the images that this build left; they carry its id as a label. With the last one go the steps below it."""
        wanted = ["--filter", "dangling=true", "--filter", "label=%sbuild=%s" % (LABEL, build_id)]
        for image in self.engine.run(["images", "--quiet", "--no-trunc"] + wanted)["stdout"].split():
            self.engine.run(["rmi", image])

    def push(self):
        """Push the target and ask the registry what it holds now."""
        pushed = self.engine.push(self.target, self.left(), self.private)
        client, repository, selector = image_supply.client_for(self.options, self.target, min(60.0, self.left()), self.insecure, self.credentials)
        digest = client.digest(repository, selector)
        if digest != pushed:
            raise SupplyError("%s was pushed as %s, but the registry holds %s; is something else writing there?" % (self.target, pushed, digest))
        self.result["digest"] = digest
        self.result["actions"].append("push " + self.target)


def make(folder, name):
    """A folder below another one, made when missing."""
    path = os.path.join(folder, name)
    os.makedirs(path, exist_ok=True)
    return path


def write(path, text):
    """Write a text file."""
    with open(path, "w") as stream:
        stream.write(text)
