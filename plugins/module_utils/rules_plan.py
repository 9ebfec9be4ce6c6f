# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules that hold the plan against the host: images, placement, ports, mounts, weights, capacity, arguments."""

from __future__ import annotations

import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import capacity, compatibility, spanning
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.rule import davinci, failed, numbers, passed, rule_in, unsure
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.rules_host import ARCHITECTURES
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.version_files import parse_version

RULES = []
rule = rule_in(RULES)
each = rule_in(RULES, each_instance=True)

GB = 10 ** 9
MIB = 1024 ** 2
HCCL_BASE_PORT = 60000
HCCL_PORTS = 32
UTILIZATION = 0.9
FILES = ("version.info", "npu-smi", "ascend_install.info", "hccn_tool")
_SIZES = {"": 1, "b": 1, "k": 1024, "m": 1024 ** 2, "g": 1024 ** 3, "t": 1024 ** 4}


@rule("image.variant", "The image is built for these chips and this machine", after=("npu.family_supported", "host.architecture"),
      why="An image for another chip refuses to start ('does not match the installed version's device type'), one for another "
          "machine ends in 'exec format error'.",
      source="vllm-ascend images: no suffix for A2, -a3 for A3, -310p for 310P; linux/arm64 and linux/amd64")
def image_variant(view):
    family = (view.compatibility.get("families") or {}).get(view.peek("family")) or {}
    suffix, soc = family.get("image_suffix"), family.get("soc")
    machine = ARCHITECTURES.get(view.peek("host.architecture"))
    for name in sorted(set(i["image"] for i in view.instances if i.get("image"))):
        image, local = view.images.get(name) or {}, _local_image(view, name)
        origin = image.get("origin") or name
        tag = origin.rsplit("/", 1)[-1].partition(":")[2]
        expected = "suffix '%s', %s" % (suffix, machine)
        architectures = set([image.get("architecture"), local.get("architecture")]) - set([None, machine])
        built_for = local.get("soc_version")
        if architectures:
            yield failed("%s is for %s" % (origin, architectures.pop()), expected, "plan the %s image of this tag" % machine)
        elif built_for and soc and not built_for.lower().startswith(soc):
            yield failed("%s holds SOC_VERSION %s" % (name, built_for), "SOC_VERSION %s.." % soc,
                         "remove it (%s image rm %s) and deploy from an origin built for these chips" % (view.peek("engine.name"), name))
        elif compatibility.plugin_version(origin) is None and not built_for:
            yield unsure("the tag of %s does not tell its chip family" % origin, expected,
                         "check SOC_VERSION in the image's environment, then waive image.variant with the reason")
        elif compatibility.plugin_version(origin) and re.findall(r"-(?:a3|310p)(?=-|$)", tag) != ([suffix] if suffix else []):
            version, _dash, rest = re.sub(r"-(a3|310p)(?=-|$)", "", tag).partition("-")
            yield failed(origin, expected, "use %s%s%s%s" % (origin[:-len(tag)], version, suffix, "-" + rest if rest else ""))
        else:
            yield passed("%s, %s" % (tag, machine), expected)


def _local_image(view, name):
    """The image of a plan's entry as the host already has it, or {}."""
    digest = (view.images.get(name) or {}).get("target_digest")
    for image in view.peek("images") or []:
        if digest and any(d.endswith("@" + digest) for d in image.get("digests") or []) or name in (image.get("tags") or []):
            return image
    return {}


@rule("plan.placement", "Every instance has its chips", after=("npu.smi", "npu.family_supported"),
      why="Chips are exclusive: what does not fit together must be known before anything is stopped.",
      source="the placement of this collection: healthy and free chips, grouped as the family wants")
def placed(view):
    conflict = view.plan.get("conflict")
    expected = "each instance on chips of its own"
    if conflict:
        names = ", ".join(str(d["name"] if isinstance(d, dict) else d) for d in conflict.get("demands") or [])
        yield failed(conflict["message"], expected, "ask for fewer chips, move one of these to another host, or free the chips: %s" % names)
        return
    owner, again = {}, "ansible-playbook playbooks/plan.yml --limit %s" % view.host
    for instance in view.instances:
        devices = davinci(instance)
        twice = sorted(set("%s (also %s)" % (path, owner[path]) for path in devices if path in owner))
        wanted = instance.get("device_count")
        if twice:
            yield failed("%s shares %s" % (instance["name"], ", ".join(twice)), expected, "take devices off one of them", instance["name"])
        elif not devices:
            yield failed("no chip is planned for %s" % instance["name"], expected, again, instance["name"])
        elif wanted not in (None, len(devices)):
            yield failed("%d of %d chips are planned" % (len(devices), wanted), expected, again, instance["name"])
        else:
            yield passed(", ".join(devices), expected, instance["name"])
        owner.update((path, instance["name"]) for path in devices)


@rule("instance.ports_distinct", "Instances of a host have ports of their own", needs_survey=False,
      why="vLLM binds with SO_REUSEPORT: two servers on one port both start and split the traffic.", source="vLLM 0.18.0 server start")
def ports_distinct(view):
    owner, expected = {}, "a port of its own"
    for instance in spanning.served(view.instances):
        port, name = instance["port"], instance["name"]
        if port in owner:
            yield failed("port %s is also %s's" % (port, owner[port]), expected, "give %s another port" % name, name)
        else:
            yield passed("port %s" % port, expected, name)
        owner.setdefault(port, name)


@each("instance.port_free", "The port is free, or ours",
      why="vLLM shares a taken port silently, so requests would go to the other process; only a plain bind tells.",
      source="vLLM 0.18.0 binds with SO_REUSEPORT")
def port_free(view, instance):
    if spanning.is_member(instance):
        return
    port, name = str(instance["port"]), instance["name"]
    state = (view.peek("ports") or {}).get(port) or {}
    listener = state.get("listener") or {}
    expected = "port %s free or ours" % port
    unit = ((view.peek("instances") or {}).get(name) or {}).get("unit") or {}
    if state.get("free"):
        yield passed("port %s is free" % port, expected)
    elif state.get("free") is None:
        yield unsure("port %s was not tried (%s)" % (port, state.get("error") or "no reason given"), expected,
                     "ss -ltnp sport = :%s" % port)
    elif listener.get("instance") == name:
        yield passed("port %s is served by this instance" % port, expected)
    elif not listener and unit.get("active_state") in ("active", "activating", "reloading"):
        # Bound but not yet listening: the normal state of a server that loads its weights.
        yield passed("port %s is bound by this instance, which is loading" % port, expected)
    elif listener:
        yield failed("port %s is taken by pid %s: %s" % (port, listener.get("pid"), listener.get("command")), expected,
                     "end pid %s if it is yours to end, or give %s another port" % (listener.get("pid"), name))
    else:
        yield failed("port %s cannot be bound: %s" % (port, state.get("error") or "in use, no listener seen"), expected,
                     "ss -tanp sport = :%s; or give %s another port" % (port, name))


@rule("instance.hccl_ports", "Instances with several chips have HCCL ports of their own", needs_survey=False,
      why="Each group of ranks takes 32 ports from HCCL_IF_BASE_PORT; shared ones end in EJ0003 or EI0019.",
      source="CANN 8.5 environment variables: HCCL_IF_BASE_PORT, default 60000, 32 ports")
def hccl_ports(view):
    ranges, expected = [], "%d ports that nothing else uses" % HCCL_PORTS
    for instance in view.instances:
        if instance["tensor_parallel_size"] < 2 and len(davinci(instance)) < 2:
            continue
        text, name = (instance.get("environment") or {}).get("HCCL_IF_BASE_PORT", HCCL_BASE_PORT), instance["name"]
        free = next((base for base in range(HCCL_BASE_PORT, 65536 - HCCL_PORTS, HCCL_PORTS)
                     if all(abs(base - other) >= HCCL_PORTS for other, _name in ranges)), "another")
        remedy = "set HCCL_IF_BASE_PORT: '%s' in the environment of %s" % (free, name)
        if not re.match(r"\d+$", str(text)) or not 1024 <= int(text) <= 65536 - HCCL_PORTS:
            yield failed("HCCL_IF_BASE_PORT %s" % text, "1024 .. %d" % (65536 - HCCL_PORTS), remedy, name)
            continue
        base = int(text)
        clash = [other for start, other in ranges if abs(base - start) < HCCL_PORTS]
        clash += ["port %s of %s" % (i["port"], i["name"]) for i in spanning.served(view.instances) if base <= i["port"] < base + HCCL_PORTS]
        if clash:
            yield failed("%d .. %d overlap %s" % (base, base + HCCL_PORTS - 1, ", ".join(clash)), expected, remedy, name)
        else:
            yield passed("%d .. %d%s" % (base, base + HCCL_PORTS - 1, _unreserved(view, base)), expected, name)
        ranges.append((base, name))


def _unreserved(view, base):
    """A note when the kernel may hand one of the ports to an outgoing connection."""
    span, last = view.peek("host.port_range") or [], base + HCCL_PORTS - 1
    if len(span) != 2 or last < span[0] or base > span[1] or view.peek("host.reserved_ports"):
        return ""
    return "; %d .. %d are for outgoing connections, safer: sysctl -w net.ipv4.ip_local_reserved_ports=%d-%d" % (
        span[0], span[1], base, last)


@each("instance.mounts_exist", "Everything that is mounted exists on the host",
      why="The engine makes an empty directory of a missing source; the failure shows much later as a missing library.",
      source="vllm-ascend issue 1440")
def mounts_exist(view, instance):
    paths, surveyed = view.read("paths"), view.peek("weights") or {}
    # The weights have a rule of their own.
    sources = [mount["source"] for mount in instance.get("mounts") or [] if mount["source"] not in surveyed]
    states = [(source, paths.get(source) or {}) for source in sources]
    absent = [source for source, state in states if state.get("exists") is False]
    unseen = [source for source, state in states if state.get("exists") is None]
    hollow = [source for source, state in states if state.get("kind") == "directory" and source.rsplit("/", 1)[-1] in FILES]
    expected = "%d sources there" % len(sources)
    if absent:
        yield failed("missing: " + ", ".join(absent), expected,
                     "install the HDK driver, or correct Driver_Install_Path_Param in /etc/ascend_install.info")
    elif hollow:
        yield failed("a directory where a file belongs: " + ", ".join(hollow), expected,
                     "rmdir %s (left by an earlier start), then reinstall the driver's file" % " ".join(hollow))
    elif unseen:
        yield unsure("not looked at: " + ", ".join(unseen), expected, "ls -ld " + " ".join(unseen))
    else:
        yield passed("all there", expected)


@each("instance.weights", "The model's files are there and whole",
      why="A missing or short file ends the start after minutes of loading.",
      source="config.json, model.safetensors.index.json and the safetensors headers of the model")
def weights(view, instance):
    path = instance["weights"]["path"]
    state = (view.peek("weights") or {}).get(path) or {}
    size, total = state.get("size_bytes"), state.get("index_total_size")
    expected = "%s with config.json and all shards" % path
    download = "hf download %s --local-dir %s" % (instance.get("model"), path)
    if state.get("exists") is None:
        yield unsure("%s was not looked at%s" % (path, ": %s" % state["error"] if state.get("error") else ""), expected, "ls -l " + path)
    elif not state["exists"]:
        yield failed("%s does not exist" % path, expected, download)
    elif state.get("error") or state.get("config") is None:
        yield failed("%s: %s" % (path, state.get("error") or "no readable config.json"), expected, download)
    elif state.get("missing_files") or state.get("small_files"):
        bad = (state.get("missing_files") or []) + (state.get("small_files") or [])
        more = " and %d more" % (len(bad) - 3) if len(bad) > 3 else ""
        yield failed("%s: missing or a few bytes long: %s%s" % (path, ", ".join(bad[:3]), more), expected, download)
    elif state.get("damaged_files"):
        bad = state["damaged_files"]
        more = " and %d more" % (len(bad) - 3) if len(bad) > 3 else ""
        yield failed("%s: %s%s" % (path, "; ".join(bad[:3]), more), expected, download)
    elif size == 0:
        yield failed("%s holds no weights" % path, expected, download)
    elif total and size is not None and size < total:
        yield failed("%s holds %.1f GB, its index lists %.1f GB" % (path, size / GB, total / GB), expected, download)
    else:
        yield passed(path, expected)


class _Demand(object):
    """What the capacity of one instance is computed from."""

    def __init__(self, view, instance):
        self.instance = instance
        found = (view.peek("weights") or {}).get(instance["weights"]["path"]) or {}
        options = instance.get("options") or {}
        self.config = found.get("config")
        catalogued = instance["weights"].get("size_gb")
        self.bytes, self.basis = found.get("index_total_size"), "the index"
        if not self.bytes and catalogued:
            self.bytes, self.basis = int(catalogued * GB), "the catalogue, no index found"
        if not self.bytes:
            self.bytes, self.basis = found.get("size_bytes"), "the directory's size, no index found"
        if self.bytes and options.get("enable-expert-parallel") is True:
            # Experts, nearly all of such a model, are spread over the data-parallel ranks too.
            self.bytes = self.bytes // int(options.get("data-parallel-size") or 1)
        self.ranks = instance["tensor_parallel_size"] * int(options.get("pipeline-parallel-size") or 1)
        self.utilization = float(options.get("gpu-memory-utilization") or UTILIZATION)
        self.explicit = "max-model-len" in options
        self.context = instance.get("max_model_len")
        totals = [chip.get("hbm_total_mib") for chip in view.wanted_chips(instance)]
        self.chip_mib = min(totals) if totals and all(totals) else None

    def missing(self):
        if not self.config:
            return "no config.json"
        if not self.bytes:
            return "no size of the weights"
        if not self.chip_mib:
            return "no memory size of the planned chips"
        return None

    def compute(self):
        return capacity.need_gib(self.config, self.bytes, self.ranks, self.context, self.utilization, self.chip_mib)

    def fewest_chips(self):
        return capacity.smallest_tensor_parallel_size(self.config, self.bytes, self.context, self.utilization, self.chip_mib)


def _sum(result, demand):
    return "%.1f GiB a chip (weights %.1f by %s, runtime %.1f, KV cache %.1f for %d tokens)" % (
        result["need"], result["weights"], demand.basis, result["fixed"] - result["weights"], result["kv"], result["context"])


def _more_chips(demand):
    fewest = demand.fewest_chips()
    return "tensor_parallel_size %d" % fewest if fewest else "a host with more memory"


@each("instance.capacity", "Weights, runtime and KV cache fit into the chips' memory",
      after=("npu.smi", "npu.chips_present", "plan.placement", "instance.weights", "instance.tp_divides_heads"),
      why="Out of memory while loading or allocating the cache is the most frequent failed start.",
      source="weights / TP x 1.03 + 1 + 3 GiB + KV cache <= utilization x memory that torch sees; arithmetic with measured constants")
def model_capacity(view, instance):
    demand = _Demand(view, instance)
    if demand.missing():
        yield unsure(demand.missing(), "an estimate", "ls -l %s" % instance["weights"]["path"])
        return
    try:
        result = demand.compute()
    except ValueError as error:
        yield unsure(str(error), "an estimate", "check %s/config.json" % instance["weights"]["path"])
        return
    expected = "at most %.1f GiB (%.2f of a %d MiB chip)" % (result["usable"], demand.utilization, demand.chip_mib)
    if result["fits"] or not demand.explicit and result["largest_context"]:
        # A default context that does not fit is instance.context_explicit's to report.
        yield passed(_sum(result, demand), expected)
    elif result["largest_context"]:
        yield failed(_sum(result, demand), expected, "set max-model-len: %d, or use %s" % (result["largest_context"], _more_chips(demand)))
    else:
        yield failed(_sum(result, demand), expected, "not even the weights fit: use %s" % _more_chips(demand))


@each("instance.context_explicit", "A model whose default context does not fit has a smaller one set", after=("instance.capacity",),
      why="Without --max-model-len vLLM takes the model's own, often huge, default and refuses to start when it does not fit.",
      source="vLLM 0.18.0: 'To serve at least one request with the model's max seq len'")
def context_explicit(view, instance):
    demand = _Demand(view, instance)
    if demand.missing():
        return
    result = demand.compute()
    expected = "a context of at most %d tokens" % result["largest_context"]
    if demand.explicit or result["fits"]:
        yield passed("%d tokens" % result["context"], expected)
    else:
        yield failed("max-model-len is not set and the default of %d tokens needs %.1f of %.1f GiB" % (
            result["context"], result["need"], result["usable"]), expected,
            "set max-model-len: %d, or use %s" % (result["largest_context"], _more_chips(demand)))


@each("instance.tp_divides_heads", "Tensor parallel ranks share the attention heads evenly", after=("instance.weights",),
      why="vLLM refuses to start otherwise.", source="vllm-ascend issue 761")
def tp_divides_heads(view, instance):
    size, path = instance["tensor_parallel_size"], instance["weights"]["path"]
    config = ((view.peek("weights") or {}).get(path) or {}).get("config")
    if not config or not capacity.text_config(config).get("num_attention_heads"):
        yield unsure("config.json does not tell the number of attention heads", "a number", "check %s/config.json" % path)
        return
    problem = capacity.heads_problem(config, size)
    heads = capacity.text_config(config)["num_attention_heads"]
    fitting = [n for n in range(1, heads + 1) if not capacity.heads_problem(config, n)]
    expected = "one of %s" % ", ".join(str(n) for n in fitting[:8])
    if problem:
        yield failed(problem, expected, "set tensor-parallel-size: %d and as many devices" % min(fitting, key=lambda n: (abs(n - size), n)))
    else:
        yield passed("%d heads over %d" % (heads, size), expected)


@each("instance.model_supported", "The image knows the model, by itself or through its patch set", after=("instance.weights",),
      why="An engine that does not know the architecture or the parser refuses to start, or computes something else silently.",
      source="catalogue/compatibility.yml, native_models")
def model_supported(view, instance):
    config = ((view.peek("weights") or {}).get(instance["weights"]["path"]) or {}).get("config") or {}
    kind = str(config.get("model_type") or "")
    native = next((row for prefix, row in (view.compatibility.get("native_models") or {}).items() if kind.startswith(prefix)), None)
    plugin = compatibility.plugin_version(view.image_of(instance).get("origin"))
    if native is None or plugin is None or instance.get("patch_set") or parse_version(plugin) >= parse_version(str(native["vllm_ascend"])):
        yield passed(kind or "model type not given", "known to the image")
    else:
        yield failed("%s with vllm-ascend %s and no patch set" % (kind, plugin),
                     "vllm-ascend %s or a patch set (%s)" % (native["vllm_ascend"], native["source"]),
                     "set patch_set for %s" % instance["name"])


@each("instance.quantization", "Quantised weights and --quantization ascend come together", after=("instance.weights",),
      why="Without the option the weights are read as plain ones ('KeyError ... q_proj.weight'); with it plain ones have no quantiser.",
      source="vllm-ascend issues 619, 4293: quant_model_description.json is written by ModelSlim")
def quantization(view, instance):
    path = instance["weights"]["path"]
    described = ((view.peek("weights") or {}).get(path) or {}).get("quantization_description")
    asked = (instance.get("options") or {}).get("quantization") == "ascend"
    expected = "quantization: ascend if and only if there is a quant_model_description.json"
    if described is None or bool(described) == asked:
        yield passed("quantised" if asked else "not quantised", expected)
    elif asked:
        yield failed("quantization: ascend, and no quant_model_description.json in %s" % path, expected,
                     "take quantization out of the arguments of %s, or fetch the ModelSlim weights" % instance["name"])
    else:
        yield failed("%s has a quant_model_description.json and quantization is not set" % path, expected,
                     "set arguments: {quantization: ascend} for %s" % instance["name"])


@each("instance.dtype_310p", "310P computes in float16 and runs eager", after=("npu.family_supported",),
      why="310P has no bfloat16 (EZ1001), and v0.18.0rc1 has no graph mode for it.", source="vllm-ascend v0.18.0rc1 tutorial for 310P")
def dtype_310p(view, instance):
    family = (view.compatibility.get("families") or {}).get(view.peek("family")) or {}
    if not family.get("dtype"):
        return
    options = instance.get("options") or {}
    wrong = [] if options.get("dtype") in (family["dtype"], "half") else ["dtype is %s" % (options.get("dtype") or "not set")]
    if family.get("eager") and options.get("enforce-eager") is not True:
        wrong.append("enforce-eager is not set")
    expected = "dtype: %s and enforce-eager: true" % family["dtype"]
    if wrong:
        yield failed(", ".join(wrong), expected, "set arguments: {%s} for %s" % (expected.replace(" and ", ", "), instance["name"]))
    else:
        yield passed(expected, expected)


@each("instance.shm", "The container's shared memory is large enough", bounds={"minimum_mib": 1024}, needs_survey=False,
      why="Workers talk through /dev/shm; the engine's default of 64 MB ends in 'No available shared memory broadcast block'.",
      source="vllm-ascend installation page: --shm-size=1g, 10g for 310P")
def shm(view, instance):
    expected = "at least %s MiB" % view.bounds["minimum_mib"]
    match = re.match(r"(\d+)([bkmgt]?)b?$", str(instance.get("shm_size") or "").lower())
    if not match or int(match.group(1)) * _SIZES[match.group(2)] < view.bounds["minimum_mib"] * MIB:
        yield failed("shm_size %s" % (instance.get("shm_size") or "not set"), expected, "set shm_size: 10g for %s" % instance["name"])
    else:
        yield passed("shm_size %s" % instance["shm_size"], expected)


@each("instance.hccl_buffer", "Expert parallelism has its HCCL buffer", bounds={"minimum_mb": 256}, needs_survey=False,
      why="Expert traffic overflows a smaller one: 'HCCL BUFFSIZE is too small', 'MTE instruction is out of range'.",
      source="Gemma 4 26B-A4B delivery: HCCL_BUFFSIZE=256; vllm-ascend issues 1788, 2674")
def hccl_buffer(view, instance):
    if (instance.get("options") or {}).get("enable-expert-parallel") is not True or instance["tensor_parallel_size"] < 2:
        return
    size = (instance.get("environment") or {}).get("HCCL_BUFFSIZE")
    expected = "HCCL_BUFFSIZE of at least %s" % view.bounds["minimum_mb"]
    if (numbers(size) or (0,))[0] < view.bounds["minimum_mb"]:
        yield failed("HCCL_BUFFSIZE %s" % (size or "not set"), expected,
                     "set HCCL_BUFFSIZE: '%s' in the environment of %s" % (view.bounds["minimum_mb"], instance["name"]))
    else:
        yield passed("HCCL_BUFFSIZE %s" % size, expected)
