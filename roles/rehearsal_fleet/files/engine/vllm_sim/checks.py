# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What vLLM 0.18.0 and vllm-ascend check at start, in their order and words. Every function raises what the real one raises."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil

from . import log, settings, tree

# SOC_VERSION of the image, name of the device type, memory that torch sees on one chip (GiB).
PLATFORMS = {"ascend910b1": ("A2", 60.97), "ascend910_9391": ("A3", 60.97), "ascend310p1": ("_310P", 43.24)}
CHIPS = ((r"\b910B[1-4]?\b", "A2"), (r"\b(Ascend910|910_93\w*|910C)\b", "A3"), (r"\b310P\d?\b", "_310P"))


def environment(args):
    """Unknown VLLM_ variables warn, or stop the start when the flag asks for it."""
    known = tree.known_environment()
    for name in sorted(os.environ):
        if name.startswith("VLLM_") and name not in known:
            if args.fail_on_environ_validation:
                raise ValueError("Unknown vLLM environment variable detected: %s" % name)
            log.line("Unknown vLLM environment variable detected: %s" % name, "WARNING", "envs.py:1712")


def parsers(args):
    """The parser names are looked up in the tree's registries."""
    known = tree.tool_parsers()
    if args.enable_auto_tool_choice and args.tool_call_parser not in known:
        raise KeyError("invalid tool call parser: %s (chose from { %s })" % (args.tool_call_parser, ",".join(known)))
    known = tree.reasoning_parsers()
    if args.reasoning_parser and args.reasoning_parser not in known:
        raise KeyError("invalid reasoning parser: %s (chose from { %s })" % (args.reasoning_parser, ",".join(known)))


def driver():
    """torch_npu needs the driver's library, mounted from the host."""
    if not os.path.exists(os.path.join(settings.DRIVER, "lib64", "libascend_hal.so")) and not os.path.exists(
            os.path.join(settings.DRIVER, "lib64", "driver", "libascend_hal.so")):
        raise ImportError("libascend_hal.so: cannot open shared object file: No such file or directory. "
                          "Please check that the driver is installed and /usr/local/Ascend/driver/lib64 is mounted.")


def model_config(model):
    """config.json of a model folder as a dict."""
    path = os.path.join(model, "config.json")
    if not os.path.isdir(model):
        if model.startswith("/"):
            raise OSError("Repo id must be in the form 'repo_name' or 'namespace/repo_name': '%s'. Use `repo_type` argument if needed." % model)
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files.\n"
                      "Check your internet connection or see how to run the library in offline mode at "
                      "'https://huggingface.co/docs/transformers/installation#offline-mode'. (model: %s)" % model)
    try:
        with open(path, encoding="utf-8") as handle:
            config = json.load(handle)
    except FileNotFoundError:
        raise ValueError("Invalid repository ID or local directory specified: '%s'.\nPlease verify the following requirements:\n"
                         "1. Provide a valid Hugging Face repository ID.\n2. Specify a local directory that contains a recognized "
                         "configuration file.\n   - For Hugging Face models: ensure the presence of a 'config.json'." % model)
    except ValueError:
        raise OSError("It looks like the config file at '%s' is not a valid JSON file." % path)
    return config


def _text_config(config):
    return config.get("text_config") or config


def _transformers():
    try:
        version = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        raise ModuleNotFoundError("No module named 'transformers'")
    return version, tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def architecture(config):
    """Transformers knows the model type, vLLM's registry the architecture."""
    kind, (version, numbers) = str(config.get("model_type", "")), _transformers()
    if kind.startswith("gemma4") and numbers < (5, 5):
        raise ValueError("The checkpoint you are trying to load has model type `%s` but Transformers does not recognize this architecture. "
                         "This could be because of an issue with the checkpoint, or because your version of Transformers is out of date. "
                         "(transformers %s)" % (kind, version))
    names = config.get("architectures") or []
    if not names:
        raise ValueError("No model architectures are specified")
    if not set(names) & tree.architectures():
        raise ValueError("%s has no vLLM implementation and the Transformers implementation is not compatible with vLLM." % names[0])
    log.line("Resolved architecture: %s" % names[0], source="model.py:533")


def max_model_len(args, config):
    """The context length in force, in tokens."""
    limit = _text_config(config).get("max_position_embeddings") or config.get("max_position_embeddings")
    wanted = args.max_model_len
    if wanted in (None, -1):
        return int(limit or 2048)
    if limit and wanted > limit:
        raise ValueError("User-specified max_model_len (%d) is greater than the derived max_model_len (max_position_embeddings=%d or "
                         "model_max_length=None in model's config.json). To allow overriding this maximum, set the env var "
                         "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1." % (wanted, limit))
    return wanted


def visible_devices():
    """Logic ids that the process may use; ASCEND_RT_VISIBLE_DEVICES counts from 0 over the nodes mapped into the container."""
    present = sorted(int(name[7:]) for name in os.listdir(settings.DEV) if re.fullmatch(r"davinci\d+", name))
    for name in ("davinci_manager", "devmm_svm", "hisi_hdc"):
        if present and not os.path.exists(os.path.join(settings.DEV, name)):
            raise RuntimeError("Initialize:build/CMakeFiles/torch_npu NPU function error: aclInit, error code is 507008. "
                               "drvRet=87, open /dev/%s failed: No such file or directory" % name)
    text = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
    if text is None:
        return list(range(len(present)))
    wanted = [int(one) for one in re.findall(r"\d+", text)]
    for one in wanted:
        if one >= len(present):
            raise RuntimeError("Set visible device failed, ASCEND_RT_VISIBLE_DEVICES=%s: error, input data rang[0-%d), input:%d. "
                               "get device count failed, runtime result = 507899" % (text, len(present), one))
    return wanted


def world_size(args):
    """Engines on this host and chips of each; refuses more chips than are visible. Returns (engines, chips per engine)."""
    engines = args.data_parallel_size_local or args.data_parallel_size
    local = args.tensor_parallel_size * args.pipeline_parallel_size * args.prefill_context_parallel_size
    visible = len(visible_devices())
    if engines * local > visible:
        raise ValueError("local_world_size (%d) must be less than or equal to the number of visible devices (%d)." % (engines * local, visible))
    return engines, local


def heads(args, config):
    """Tensor parallelism divides the attention heads."""
    count = _text_config(config).get("num_attention_heads")
    if count and count % args.tensor_parallel_size:
        raise ValueError("Total number of attention heads (%d) must be divisible by tensor parallel size (%d)."
                         % (count, args.tensor_parallel_size))


def chip():
    """Device type of the host's chips as the driver tells it, or None when it does not."""
    try:
        with open(os.path.join(settings.DRIVER, "lib64", "rehearsal_node.json"), encoding="utf-8") as handle:
            text = str(json.load(handle).get("chip_name"))
    except FileNotFoundError:
        return None
    return next((name for pattern, name in CHIPS if re.search(pattern, text)), None)


def device_type():
    """The image was built for one device type and asserts it at start. Returns (type, GiB per chip)."""
    built, memory = PLATFORMS.get(os.environ.get("SOC_VERSION", ""), (None, 60.97))
    current = chip()
    if shutil.which("npu-smi") is None:
        log.line("Bind cpus failed: Can not get running npu info. (npu-smi not found)", "WARNING", "worker.py:412")
    if built and current and built != current:
        raise AssertionError("Current device type: AscendDeviceType.%s does not match the installed version's device type: "
                             "AscendDeviceType.%s, please check your installation package." % (current, built))
    return built or current, memory


def limits_of_310p(args, config):
    """A 310P knows float16 only, and graph mode not yet."""
    stored = str(_text_config(config).get("dtype") or _text_config(config).get("torch_dtype") or config.get("torch_dtype") or "bfloat16")
    dtype = stored if args.dtype == "auto" else args.dtype
    if dtype in ("bfloat16", "float32", "float"):
        raise RuntimeError("call aclnnInplaceCopy failed, error code is 161001. EZ1001: tensor dtype DT_BFLOAT16 not supported, "
                           "should be in dtype support list [DT_FLOAT16,DT_INT8,...]; use --dtype float16")
    if not args.enforce_eager:
        raise RuntimeError("EZ9999: graph capture is not supported on this chip (aclmdlRICaptureBegin, error code is 207000); use --enforce-eager")


def weights_bytes(model):
    """Size of the weights: what the index says, or the safetensors files."""
    try:
        with open(os.path.join(model, "model.safetensors.index.json"), encoding="utf-8") as handle:
            return int(json.load(handle)["metadata"]["total_size"])
    except (FileNotFoundError, KeyError, ValueError):
        return sum(os.path.getsize(os.path.join(model, name)) for name in os.listdir(model) if name.endswith(".safetensors"))


def kv_memory(args, weights, chips, memory):
    """GiB left for the cache on one chip; refuses none. The runtime and its buffers take about 3 GiB."""
    left = memory * args.gpu_memory_utilization - weights / 2.0 ** 30 / chips - 3
    log.line("Available KV cache memory: %.2f GiB" % left, source="worker.py:358")
    if left <= 0:
        raise ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.")
    return left


def answers_nonsense(config):
    """Gemma 4's experts on an unpatched MoE layer: the server is healthy and the text is wrong."""
    experts = _text_config(config).get("num_experts") or 0
    return str(config.get("model_type", "")).startswith("gemma4") and experts > 0 and not tree.moe_honours_gelu()
