# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Image references, mirrors and the registry protocol (distribution v2). :class:`Client` and :func:`ask_all` do I/O."""

from __future__ import annotations

import base64
import glob
import hashlib
import http.client
import json
import os
import random
import re
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST_TYPES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
ACCEPT = ", ".join(INDEX_TYPES + MANIFEST_TYPES)
CERTIFICATE_FOLDERS = ("/etc/docker/certs.d", "/etc/containers/certs.d")
BODY_LIMIT = 8 << 20
TRIES = 4
SOCKET_TIMEOUT_S = 20.0
# A registry reads gigabytes again to prove them.
PROVING_S = 600.0
GRACE_S = 3.0
SAMPLE_BYTES = 4 << 20
SAMPLE_S = 2.0

_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
_REPOSITORY = re.compile(r"^[a-z0-9]+(?:(?:[._]|__|-+|/)[a-z0-9]+)*$")
_TAG = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")


class RegistryError(Exception):
    """A registry did not give what was asked; ``status`` is the HTTP status or None."""

    def __init__(self, message, status=None):
        super().__init__(message)
        self.status = status


# --- pure: references -----------------------------------------------------------------------------------------------


def parse_reference(text):
    """Split an image reference: ``{registry, repository, tag, digest}`` (the last two may be None).

    Docker Hub's short names are written out. Raises RegistryError naming the part that is wrong.
    """
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.match(digest):
        raise RegistryError("image %s: %r is not a digest, wanted sha256: and 64 hexadecimal digits" % (text, digest))
    first, slash, remainder = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, rest = first, remainder
    else:
        registry = "docker.io"
    repository, colon, tag = rest.partition(":")
    if registry in ("docker.io", "index.docker.io") and "/" not in repository:
        repository = "library/" + repository
    if not _REPOSITORY.match(repository):
        raise RegistryError("image %s: %r is not a repository name (lower case letters, digits and . _ - / only)" % (text, repository))
    if colon and not _TAG.match(tag):
        raise RegistryError("image %s: %r is not a tag" % (text, tag))
    return {"registry": registry, "repository": repository, "tag": tag or None, "digest": digest or None}


def format_reference(registry, repository, tag=None, digest=None):
    """The inverse of :func:`parse_reference`."""
    return "%s/%s%s%s" % (registry, repository, ":" + tag if tag else "", "@" + digest if digest else "")


def by_digest(reference, digest):
    """``registry/repository@digest`` of any reference to the same repository."""
    parts = parse_reference(reference)
    return format_reference(parts["registry"], parts["repository"], digest=digest)


def mirror_references(reference, mirrors):
    """The reference as each mirror spells it, in order. Pure.

    ``mirrors`` is the list of ``catalogue/images.yml``: ``{kind: prefix | host | origin, host}``. A prefix mirror puts its
    host before the whole reference, a host mirror replaces the registry. Without any mirror it is the reference alone.
    """
    parts = parse_reference(reference)
    tail = {"tag": parts["tag"], "digest": parts["digest"]}
    result = []
    for mirror in mirrors or [{"kind": "origin"}]:
        kind = mirror.get("kind")
        if kind == "prefix":
            spelled = format_reference(mirror["host"], parts["registry"] + "/" + parts["repository"], **tail)
        elif kind == "host":
            spelled = format_reference(mirror["host"], parts["repository"], **tail)
        elif kind == "origin":
            spelled = format_reference(parts["registry"], parts["repository"], **tail)
        else:
            raise RegistryError("mirror %s: kind is %r, wanted prefix, host or origin" % (mirror.get("host"), kind))
        if spelled not in result:
            result.append(spelled)
    return result


def choose(answers, pinned, origin=None):
    """Judge what the mirrors said of one image. Pure.

    ``answers``: ``[{reference, digest or None, error or None, elapsed_s}]`` in the order of the mirrors; ``pinned``: the digest
    wanted or None; ``origin``: the reference whose word counts when nothing is pinned.
    Returns ``{digest, trusted: [references, fastest first], liars: [{reference, digest}], silent: [{reference, error}], note}``.
    ``digest`` is None when nobody can be trusted; ``note`` then says why.
    """
    said = [answer for answer in answers if answer.get("digest")]
    silent = [{"reference": answer["reference"], "error": answer.get("error") or "no answer"} for answer in answers if not answer.get("digest")]
    digest, note = pinned, ""
    if not digest and said:
        first = [answer for answer in said if answer["reference"] == origin]
        if first:
            digest, note = first[0]["digest"], "no digest was pinned, taken from the origin %s" % origin
        else:
            counts = {}
            for answer in said:
                counts[answer["digest"]] = counts.get(answer["digest"], 0) + 1
            # max keeps the first of equals, and said has the order of the mirrors.
            digest = max([answer["digest"] for answer in said], key=lambda each: counts[each])
            note = "no digest was pinned and the origin is silent, taken from %d of %d mirrors" % (counts[digest], len(said))
    trusted = sorted((answer for answer in said if answer["digest"] == digest), key=lambda answer: answer["elapsed_s"])
    liars = [{"reference": answer["reference"], "digest": answer["digest"]} for answer in said if answer["digest"] != digest]
    if not trusted:
        reasons = ["%s has %s" % (liar["reference"], liar["digest"]) for liar in liars]
        reasons += ["%s: %s" % (each["reference"], each["error"]) for each in silent]
        note = "no mirror has %s: %s" % (pinned or "the image", "; ".join(reasons) or "none was given")
    return {"digest": digest if trusted else None, "trusted": [answer["reference"] for answer in trusted], "liars": liars, "silent": silent,
            "note": note}


def by_speed(references, speeds):
    """The references, fastest first; those that could not be measured keep their order behind them. Pure.

    ``speeds``: {reference: bytes per second or None}. Without any measurement the order stays.
    """
    return sorted(references, key=lambda each: -(speeds.get(each) or 0.0))


def largest_layer(manifest):
    """Digest of the biggest layer of one image, or None."""
    layers = [each for each in manifest.get("layers") or [] if each.get("digest")]
    return max(layers, key=lambda each: each.get("size") or 0)["digest"] if layers else None


def architectures_of(manifest):
    """``["amd64", ...]`` of an index, or None for the manifest of one image (its config blob knows)."""
    if "manifests" not in manifest:
        return None
    found = [(each.get("platform") or {}).get("architecture") for each in manifest["manifests"]]
    return [each for each in found if each and each != "unknown"]


def digest_for(manifest, architecture):
    """Digest inside an index of the image for one architecture, or None."""
    for each in manifest.get("manifests", []):
        platform = each.get("platform") or {}
        if platform.get("architecture") == architecture and platform.get("os", "linux") == "linux":
            return each["digest"]
    return None


def retry_delay(attempt, retry_after, draw):
    """Seconds before the next try: what the server asks for, else 1, 2, 4 ... with jitter. ``draw`` is a number in [0, 1)."""
    if retry_after and retry_after.strip().isdigit():
        return float(retry_after) + draw
    return (2 ** attempt) * (0.5 + draw)


def parse_challenge(header):
    """``(scheme, {parameter: value})`` of a WWW-Authenticate header; scheme in lower case."""
    scheme, dummy, rest = (header or "").strip().partition(" ")
    return scheme.lower(), dict(re.findall(r'(\w+)="([^"]*)"', rest))


# --- I/O ------------------------------------------------------------------------------------------------------------


def tls_context(registry):
    """System trust plus what the engines keep for that registry: ``certs.d/<host[:port]>/*.crt`` and client.cert/client.key."""
    context = ssl.create_default_context()
    for folder in CERTIFICATE_FOLDERS:
        for path in sorted(glob.glob(os.path.join(folder, glob.escape(registry), "*.crt"))):
            context.load_verify_locations(cafile=path)
        for path in sorted(glob.glob(os.path.join(folder, glob.escape(registry), "*.cert"))):
            context.load_cert_chain(path, path[:-len(".cert")] + ".key")
    return context


class Client:
    """Speaks with one registry. ``insecure`` allows plain HTTP. The deadline is total, over every try of every call.

    Credentials go to this registry and to the token service that it names, nowhere else.
    """

    def __init__(self, registry, deadline_s=60.0, username=None, password=None, insecure=False, sleep=time.sleep, clock=time.monotonic):
        self.registry = registry
        self.username, self.password = username, password
        self.insecure = insecure
        self.sleep, self.clock = sleep, clock
        self.end = clock() + deadline_s
        self.authorization = None
        host = "registry-1.docker.io" if registry in ("docker.io", "index.docker.io") else registry
        self.bases = ["https://" + host] + (["http://" + host] if insecure else [])

    def _left(self):
        left = self.end - self.clock()
        if left <= 0:
            raise RegistryError("%s: no answer before the deadline" % self.registry)
        return left

    def _basic(self):
        return "Basic " + base64.b64encode(("%s:%s" % (self.username, self.password)).encode("utf-8")).decode("ascii")

    def _connect(self, url, method, headers, timeout_s=SOCKET_TIMEOUT_S, data=None):
        """An open answer; HTTPError for any status but success, OSError when there is none."""
        request = urllib.request.Request(url, method=method, headers=headers, data=data)
        if self.authorization:
            # Not sent along on a redirect: blobs often live with another host.
            request.add_unredirected_header("Authorization", self.authorization)
        handlers = [urllib.request.HTTPSHandler(context=tls_context(self.registry))] if url.startswith("https:") else []
        return urllib.request.build_opener(*handlers).open(request, timeout=min(timeout_s, self._left()))

    def _open(self, url, method, headers):
        """One request; returns ``(status, headers, body)`` for any status, raises OSError when there is no answer."""
        try:
            with self._connect(url, method, headers) as answer:
                return answer.status, answer.headers, self._body(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, b""

    def _body(self, answer):
        body = b""
        while True:
            block = answer.read(1 << 16)
            if not block:
                break
            body += block
            self._left()
            if len(body) > BODY_LIMIT:
                raise RegistryError("%s sent more than %d MiB for a manifest" % (self.registry, BODY_LIMIT >> 20))
        length = answer.headers.get("Content-Length")
        if answer.headers.get("Content-Encoding") is None and length and length.isdigit() and body and len(body) < int(length):
            raise RegistryError("%s closed the connection after %d of %s bytes" % (self.registry, len(body), length))
        return body

    def request(self, path, method="GET", accept=ACCEPT):
        """Ask with authentication and bounded back-off; ``(headers, body)`` of a 200, RegistryError for all else."""
        status, headers = None, {}
        for attempt in range(TRIES):
            problem = None
            try:
                status, headers, body = self._try_bases(path, method, accept)
            except (OSError, ValueError) as error:
                problem = getattr(error, "reason", None) or error
            if problem is None and status == 200:
                return headers, body
            if problem is None and status == 401 and self.authorization is None and self._authenticate(headers.get("WWW-Authenticate")):
                status, headers, body = self._try_bases(path, method, accept)
                if status == 200:
                    return headers, body
            if problem is None and status in (401, 403):
                with_whom = "the credentials of %s" % self.username if self.username else "a request without credentials"
                raise RegistryError("%s refuses %s (HTTP %d); check registry_username and registry_password" % (self.registry, with_whom, status), status)
            if problem is None and status not in (429,) and status < 500:
                raise RegistryError("%s answered HTTP %d for %s" % (self.registry, status, path), status)
            if problem is not None and isinstance(problem, ssl.SSLError):
                raise RegistryError("%s: TLS failed (%s); put its CA into /etc/docker/certs.d/%s/ca.crt" % (self.registry, problem, self.registry))
            reason = "cannot be reached: %s" % problem if problem is not None else "answered HTTP %d" % status
            if attempt + 1 == TRIES or (problem is not None and attempt == 1):
                raise RegistryError("%s %s" % (self.registry, reason), status if problem is None else None)
            delay = retry_delay(attempt, headers.get("Retry-After") if problem is None else None, random.random())
            if delay >= self._left():
                raise RegistryError("%s %s, and the deadline comes before its next try" % (self.registry, reason), status if problem is None else None)
            self.sleep(delay)
        raise RegistryError("%s gave no answer" % self.registry)

    def _try_bases(self, path, method, accept):
        failure = None
        for base in list(self.bases):
            try:
                answer = self._open(base + path, method, {"Accept": accept, "User-Agent": "vllm-ascend-fleet"})
                self.bases = [base]
                return answer
            except OSError as error:
                failure = error
                if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
                    break  # It does speak TLS, so plain HTTP is no answer.
        raise failure

    def _authenticate(self, challenge):
        """Answer a challenge: basic, or a token from the service it names. False when there is nothing to answer with."""
        scheme, parameters = parse_challenge(challenge)
        if scheme == "basic" and self.username:
            self.authorization = self._basic()
            return True
        if scheme == "bearer" and parameters.get("realm"):
            query = {key: parameters[key] for key in ("service", "scope") if key in parameters}
            self.authorization = self._basic() if self.username else None
            status, dummy, body = self._open(parameters["realm"] + "?" + urllib.parse.urlencode(query), "GET", {"User-Agent": "vllm-ascend-fleet"})
            self.authorization = None
            if status != 200:
                return False
            try:
                answer = json.loads(body.decode("utf-8"))
            except ValueError:
                return False
            token = answer.get("token") or answer.get("access_token")
            self.authorization = "Bearer " + token if token else None
            return bool(token)
        return False

    def digest(self, repository, selector):
        """Digest that the registry holds under a tag or digest. HEAD first; a GET, hashed here, where HEAD says nothing."""
        path = "/v2/%s/manifests/%s" % (repository, selector)
        try:
            found = self.request(path, "HEAD")[0].get("Docker-Content-Digest", "")
        except RegistryError as error:
            if error.status != 405:
                raise
            found = ""
        return found if _DIGEST.match(found) else self.manifest(repository, selector)[0]

    def manifest_text(self, repository, digest):
        """The bytes of a manifest, which hash to its digest."""
        body = self.request("/v2/%s/manifests/%s" % (repository, digest))[1]
        if "sha256:" + hashlib.sha256(body).hexdigest() != digest:
            raise RegistryError("%s sent a manifest that does not hash to %s" % (self.registry, digest))
        return body

    def download(self, repository, digest, path, tell=None):
        """Have a blob as a file, proven by its digest. A try that breaks off begins anew; nothing that is not whole bears the name."""
        url, problem = "/v2/%s/blobs/%s" % (repository, digest), None
        for attempt in range(TRIES):
            if attempt:
                self.sleep(min(retry_delay(attempt, None, random.random()), self._left()))
            came, value = 0, hashlib.sha256()
            try:
                with self._connect(self.bases[0] + url, "GET", {"Accept": "*/*", "User-Agent": "vllm-ascend-fleet"}) as answer, open(
                    path + ".part", "wb"
                ) as stream:
                    for block in iter(lambda source=answer: source.read(1 << 20), b""):
                        self._left()
                        stream.write(block)
                        value.update(block)
                        came += len(block)
                        if tell:
                            tell(came)
            except urllib.error.HTTPError as error:
                problem = "answered HTTP %d" % error.code
                if error.code == 401:
                    self._authenticate(error.headers.get("WWW-Authenticate"))
                continue
            except (OSError, http.client.HTTPException) as error:
                problem = "broke off: %s" % error
                continue
            if "sha256:" + value.hexdigest() == digest:
                os.rename(path + ".part", path)
                return
            problem = "sent %d bytes that do not hash to it" % came
        raise RegistryError("%s does not give %s: it %s" % (self.registry, digest, problem))

    def has_blob(self, repository, digest):
        """Whether the repository has a blob."""
        try:
            self.request("/v2/%s/blobs/%s" % (repository, digest), "HEAD", "*/*")
        except RegistryError as error:
            if error.status != 404:
                raise
            return False
        return True

    def blob(self, repository, digest, offset=0):
        """An open answer with the bytes of a blob from ``offset`` on. RegistryError when there is none."""
        headers = {"Accept": "*/*", "User-Agent": "vllm-ascend-fleet"}
        if offset:
            headers["Range"] = "bytes=%d-" % offset
        answer = self._send("/v2/%s/blobs/%s" % (repository, digest), "GET", headers)
        try:
            # Who does not know of ranges begins anew.
            left = offset if offset and answer.status == 200 else 0
            while left:
                skipped = len(answer.read(min(left, 1 << 20)))
                if not skipped:
                    raise RegistryError("%s broke off %s" % (self.registry, digest))
                left -= skipped
        except (OSError, http.client.HTTPException) as error:
            raise RegistryError("%s broke off %s: %s" % (self.registry, digest, error))
        return answer

    def upload(self, repository, digest, blocks):
        """Give the registry a blob, block by block; it proves the digest itself. What ``blocks`` raises cancels the upload."""
        place = self._place(self._send("/v2/%s/blobs/uploads/" % repository, "POST", {"User-Agent": "vllm-ascend-fleet"}, b""))
        try:
            came = 0
            for block in blocks:
                headers = {"Content-Type": "application/octet-stream", "Content-Range": "%d-%d" % (came, came + len(block) - 1)}
                place = self._place(self._send(place, "PATCH", headers, block))
                came += len(block)
            self._send(place + ("&" if "?" in place else "?") + urllib.parse.urlencode({"digest": digest}), "PUT", {}, b"", PROVING_S).close()
        except Exception:
            try:
                self._send(place, "DELETE", {}).close()
            except RegistryError:
                pass  # It forgets uploads by itself in time; what went wrong before is what counts.
            raise

    def put_manifest(self, repository, selector, body, kind):
        """Give the registry a manifest of media type ``kind``, byte for byte."""
        self._send("/v2/%s/manifests/%s" % (repository, selector), "PUT", {"Content-Type": kind}, body).close()

    def _place(self, answer):
        """Path of an upload, as the registry names it. Only the registry itself is sent to, whatever name a proxy before it made up."""
        with answer:
            parts = urllib.parse.urlsplit(answer.headers.get("Location") or "")
        if not parts.path:
            raise RegistryError("%s does not say where to upload to" % self.registry)
        return urllib.parse.urlunsplit(("", "", parts.path, parts.query, ""))

    def _send(self, path, method, headers, data=None, timeout_s=SOCKET_TIMEOUT_S):
        """One request with authentication and without a second try; an open answer, RegistryError for all but success."""
        for attempt in range(3):
            try:
                answer = self._connect(self.bases[0] + path, method, headers, timeout_s, data)
                self.bases = self.bases[:1]
                return answer
            except urllib.error.HTTPError as error:
                with error:
                    # A token is for what it was asked for; to write needs another one than to read.
                    if error.code == 401 and attempt < 2 and self._authenticate(error.headers.get("WWW-Authenticate")):
                        continue
                    said = error.read(2000).decode("utf-8", "replace")
                raise RegistryError("%s answered HTTP %d to %s %s %s" % (self.registry, error.code, method, path.partition("?")[0], said.strip()), error.code)
            except (OSError, http.client.HTTPException) as error:
                if len(self.bases) > 1 and not isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
                    self.bases = self.bases[1:]
                    continue
                raise RegistryError("%s cannot be reached: %s" % (self.registry, getattr(error, "reason", None) or error))
        raise RegistryError("%s refuses to %s %s" % (self.registry, method, path.partition("?")[0]))

    def manifest(self, repository, selector):
        """``(digest, manifest)`` with the digest computed from the bytes; RegistryError when the registry says another one."""
        headers, body = self.request("/v2/%s/manifests/%s" % (repository, selector))
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        for claimed in (headers.get("Docker-Content-Digest"), selector if selector.startswith("sha256:") else None):
            if claimed and claimed != digest:
                raise RegistryError("%s sent a manifest that hashes to %s where %s was announced" % (self.registry, digest, claimed))
        try:
            return digest, json.loads(body.decode("utf-8"))
        except ValueError:
            raise RegistryError("%s sent a manifest that is not JSON" % self.registry)

    def speed(self, repository, selector, architecture=None):
        """Bytes per second at which the start of the biggest layer comes, None when the image has no layer to ask for."""
        manifest = self.manifest(repository, selector)[1]
        inner = digest_for(manifest, architecture)
        layer = largest_layer(self.manifest(repository, inner)[1] if inner else manifest)
        if layer is None:
            return None
        headers = {"Accept": "*/*", "User-Agent": "vllm-ascend-fleet", "Range": "bytes=0-%d" % (SAMPLE_BYTES - 1)}
        started, received = self.clock(), 0
        try:
            with self._connect("%s/v2/%s/blobs/%s" % (self.bases[0], repository, layer), "GET", headers, SAMPLE_S) as answer:
                while received < SAMPLE_BYTES and self.clock() - started < SAMPLE_S:
                    block = answer.read1(1 << 16)
                    if not block:
                        break
                    received += len(block)
        except OSError:
            if received == 0:
                return 0.0
        return received / max(self.clock() - started, 1e-6)

    def image(self, repository, selector, architecture=None):
        """``{digest, architectures, architecture, labels, config_digest, sizes}`` of an image; all but the first two are empty in an index without ours.

        ``sizes`` is ``{the twelve digits under which engines show a layer: its bytes}``.
        """
        digest, manifest = self.manifest(repository, selector)
        result = {"digest": digest, "architectures": architectures_of(manifest), "architecture": None, "labels": None, "config_digest": None, "sizes": {}}
        if result["architectures"] is not None:
            inner = digest_for(manifest, architecture)
            if inner is None:
                return result
            manifest = self.manifest(repository, inner)[1]
        config_digest = (manifest.get("config") or {}).get("digest")
        if not config_digest:
            raise RegistryError("%s sent a manifest of an unknown kind (schema %s)" % (self.registry, manifest.get("schemaVersion")))
        body = self.request("/v2/%s/blobs/%s" % (repository, config_digest), accept="*/*")[1]
        if "sha256:" + hashlib.sha256(body).hexdigest() != config_digest:
            raise RegistryError("%s sent a config that does not hash to %s" % (self.registry, config_digest))
        config = json.loads(body.decode("utf-8"))
        result["sizes"] = dict((layer["digest"].partition(":")[2][:12], layer.get("size") or 0) for layer in manifest.get("layers") or ())
        result.update(architecture=config.get("architecture"), labels=(config.get("config") or {}).get("Labels") or {}, config_digest=config_digest)
        if result["architectures"] is None:
            result["architectures"] = [result["architecture"]]
        return result


def ask_all(references, deadline_s=30.0, client=Client, credentials=None, insecure=None, enough=None):
    """Ask every mirror at the same time which digest it holds. ``credentials``: ``{registry: (username, password)}``.

    Once an answer is ``enough`` (a predicate), the others have only a moment more: one stalled mirror must not hold up the fleet.
    Returns the answers in the order of the references, see :func:`choose`; who is silent at the end gets an error.
    """
    answers = {}
    lock = threading.Condition()

    def ask(reference):
        started = time.monotonic()
        answer = {"reference": reference, "digest": None, "error": None}
        try:
            parts = parse_reference(reference)
            username, password = (credentials or {}).get(parts["registry"], (None, None))
            speaker = client(parts["registry"], deadline_s, username, password, bool(insecure and insecure(parts["registry"])))
            answer["digest"] = speaker.digest(parts["repository"], parts["tag"] or parts["digest"] or "latest")
        except RegistryError as error:
            answer["error"] = str(error)
        answer["elapsed_s"] = round(time.monotonic() - started, 3)
        with lock:
            answers[reference] = answer
            lock.notify()

    started = time.monotonic()
    end = started + deadline_s + 1.0
    for reference in references:
        threading.Thread(target=ask, args=(reference,), daemon=True).start()
    with lock:
        satisfied = False
        while len(answers) < len(set(references)) and time.monotonic() < end:
            lock.wait(end - time.monotonic())
            if not satisfied and enough and any(enough(answer) for answer in answers.values()):
                satisfied, end = True, min(end, time.monotonic() + GRACE_S)
        waited = time.monotonic() - started
        return [answers.get(reference) or {"reference": reference, "digest": None, "error": "no answer within %.0f s" % waited,
                                           "elapsed_s": waited} for reference in references]


def measure(references, architecture=None, deadline_s=10.0, client=Client, credentials=None, insecure=None):
    """``{reference: bytes per second, or None}`` of references by digest, all asked at the same time; see :func:`by_speed`."""
    speeds, threads = {}, []

    def ask(reference):
        try:
            parts = parse_reference(reference)
            username, password = (credentials or {}).get(parts["registry"], (None, None))
            speaker = client(parts["registry"], deadline_s, username, password, bool(insecure and insecure(parts["registry"])))
            speeds[reference] = speaker.speed(parts["repository"], parts["digest"], architecture)
        except RegistryError:
            # It told the digest and now fails: it comes last, and the pull will say why.
            speeds[reference] = 0.0

    end = time.monotonic() + deadline_s
    for reference in references:
        threads.append(threading.Thread(target=ask, args=(reference,), daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict((reference, speeds.get(reference)) for reference in references)


def select(references, pinned=None, origin=None, **options):
    """Ask the mirrors and judge them; see :func:`ask_all` for the options and :func:`choose` for what comes back.

    When every tag has moved away from the pinned digest, the mirrors are asked for that digest itself.
    """
    def enough(answer):
        return answer["digest"] is not None and (answer["digest"] == pinned if pinned else answer["reference"] == origin)

    choice = choose(ask_all(references, enough=enough, **options), pinned, origin)
    if pinned and not choice["trusted"] and choice["liars"]:
        asked = [by_digest(reference, pinned) for reference in references]
        again = choose(ask_all(asked, **options), pinned, origin)
        if again["trusted"]:
            return dict(again, liars=choice["liars"], note="the tag has moved; %s is still served by digest" % pinned)
    return choice
