# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a model fit? HBM needed per chip against HBM that the engine may use."""

from __future__ import annotations

GIB = 1024.0 ** 3

# What torch sees of a chip, by the MiB that npu-smi prints; 310P shows all that it prints (44280 MiB = 43.24 GiB).
# Source: start-up messages of vllm-ascend on 910B3, 910C (64 GB) and 910B4 (32 GB).
TORCH_GIB = {65536: 60.97, 32768: 29.5}
# HBM in use on an idle chip, by total; the last one is 310P. Source: npu-smi tables in public issues.
IDLE_MIB = {65536: 3430, 32768: 2800}
IDLE_MIB_310P = 1836
IDLE_SLACK_MIB = 1024

WEIGHTS_OVERHEAD = 1.03
REPLICATED_GIB = 1.0
RUNTIME_GIB = 3.0
BYTES_PER_VALUE = 2
# Tokens in flight beyond a sliding window: vLLM's default --max-num-batched-tokens of a server.
IN_FLIGHT_TOKENS = 2048
CONTEXT_STEP = 1024


def usable_gib(chip_hbm_mib, utilization):
    """GiB of a chip that vLLM takes at this --gpu-memory-utilization."""
    return utilization * TORCH_GIB.get(chip_hbm_mib, chip_hbm_mib / 1024.0)


def idle_limit_mib(chip_hbm_mib, idle_mib=None):
    """MiB in use above which a chip without any process is not idle."""
    return (IDLE_MIB.get(chip_hbm_mib, IDLE_MIB_310P) if idle_mib is None else idle_mib) + IDLE_SLACK_MIB


def text_config(config):
    """The part of config.json that describes the language model; multimodal models nest it."""
    return config.get("text_config") or config


def default_context(config):
    """The context that vLLM takes when --max-model-len is not given, or None."""
    return text_config(config).get("max_position_embeddings")


def kv_bytes(config, tensor_parallel_size):
    """KV cache per chip.

    :returns: (bytes per token of context, fixed bytes of the layers that only see a window).
    :raises ValueError: when config.json lacks a number that the estimate needs.
    """
    text = text_config(config)
    layers = _number(text, "num_hidden_layers")
    if text.get("kv_lora_rank"):
        # Multi-head latent attention keeps one compressed vector per token and layer, on every rank.
        width = text["kv_lora_rank"] + (text.get("qk_rope_head_dim") or 0)
        return layers * width * BYTES_PER_VALUE, 0
    heads = text.get("num_key_value_heads") or _number(text, "num_attention_heads")
    size = text.get("head_dim") or _number(text, "hidden_size") // _number(text, "num_attention_heads")
    full, sliding = _layers(text, layers)
    full_heads = text.get("num_global_key_value_heads") or heads
    full_size = text.get("global_head_dim") or size
    per_token = full * _per_layer(full_heads, full_size, tensor_parallel_size)
    window = (text.get("sliding_window") or 0) + IN_FLIGHT_TOKENS
    return per_token, sliding * _per_layer(heads, size, tensor_parallel_size) * window


def _per_layer(heads, size, tensor_parallel_size):
    return 2.0 * heads * size * BYTES_PER_VALUE / min(tensor_parallel_size, heads)


def _layers(text, layers):
    """How many layers attend to everything, and how many to a sliding window only."""
    types = text.get("layer_types")
    if types:
        sliding = sum(1 for kind in types if kind in ("sliding_attention", "chunked_attention"))
        return len(types) - sliding - sum(1 for kind in types if kind == "linear_attention"), sliding
    pattern = text.get("sliding_window_pattern") or text.get("_sliding_window_pattern")
    if pattern and text.get("sliding_window") and text.get("use_sliding_window", True):
        return layers // pattern, layers - layers // pattern
    return layers, 0


def _number(text, key):
    value = text.get(key)
    if not isinstance(value, int) or value <= 0:
        raise ValueError("config.json has no usable %s (%r)" % (key, value))
    return value


def need_gib(config, weights_bytes, tensor_parallel_size, max_model_len, utilization, chip_hbm_mib):
    """HBM per chip for one model.

    need = weights / TP x 1.03 + 1 (replicated vision and embedding) + 3 (runtime, graphs, HCCL buffers) + KV cache; an estimate
    from arithmetic and a few measured loads, not a promise.

    :param dict config: the model's config.json.
    :param int weights_bytes: bytes of all weights.
    :param int tensor_parallel_size: ranks that share the weights.
    :param max_model_len: tokens of context, None for the model's default.
    :param float utilization: --gpu-memory-utilization.
    :param int chip_hbm_mib: memory of the smallest chip as npu-smi prints it.
    :returns: dict of GiB: weights, fixed, kv, need, usable; fits; context and largest_context in tokens (0: not even the weights fit).
    :raises ValueError: when config.json lacks a number that the estimate needs.
    """
    context = max_model_len or default_context(config)
    if not context:
        raise ValueError("config.json has no max_position_embeddings and no --max-model-len is given")
    per_token, window = kv_bytes(config, tensor_parallel_size)
    usable = usable_gib(chip_hbm_mib, utilization)
    weights = weights_bytes / GIB / tensor_parallel_size * WEIGHTS_OVERHEAD
    fixed = weights + REPLICATED_GIB + RUNTIME_GIB + window / GIB
    kv = per_token * context / GIB
    room = max(usable - fixed, 0) * GIB
    largest = context if not per_token else int(room / per_token)
    largest = min(largest, max(context, default_context(config) or context))
    if largest < context:
        largest -= largest % CONTEXT_STEP
    return {"weights": weights, "fixed": fixed, "kv": kv, "need": fixed + kv, "usable": usable, "context": context,
            "fits": fixed + kv <= usable, "largest_context": largest if usable > fixed else 0}


def smallest_tensor_parallel_size(config, weights_bytes, max_model_len, utilization, chip_hbm_mib, most=16):
    """The fewest chips, as a power of two that divides the attention heads, on which the model fits; None when there are none."""
    size = 1
    while size <= most:
        if not heads_problem(config, size) and need_gib(
                config, weights_bytes, size, max_model_len, utilization, chip_hbm_mib)["fits"]:
            return size
        size *= 2
    return None


def heads_problem(config, tensor_parallel_size):
    """Why the attention heads cannot be shared by so many ranks, or None."""
    text = text_config(config)
    heads = _number(text, "num_attention_heads")
    if heads % tensor_parallel_size:
        return "%d attention heads are not divisible by %d" % (heads, tensor_parallel_size)
    kv_heads = text.get("num_key_value_heads") or heads
    if not text.get("kv_lora_rank") and kv_heads % tensor_parallel_size and tensor_parallel_size % kv_heads:
        return "%d KV heads and tensor parallel size %d do not divide each other" % (kv_heads, tensor_parallel_size)
    return None
