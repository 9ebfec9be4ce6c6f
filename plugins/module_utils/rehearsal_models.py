# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The weights that simulated hosts hold: shapes as the models' own config.json states them, sizes as the catalogue has them. Pure."""

from __future__ import annotations

GEMMA4 = {"architectures": ["Gemma4ForConditionalGeneration"], "model_type": "gemma4", "dtype": "bfloat16"}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "torch_dtype": "bfloat16", "max_position_embeddings": 40960,
         "vocab_size": 151936, "head_dim": 128, "num_key_value_heads": 8}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "vocab_size": 32000,
         "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "max_position_embeddings": 4096}


def _gemma4(layers, full_every, hidden, heads, kv_heads, window, context, **more):
    kinds = ["full_attention" if (layer + 1) % full_every == 0 else "sliding_attention" for layer in range(layers)]
    text = dict({"model_type": "gemma4_text", "num_hidden_layers": layers, "layer_types": kinds, "hidden_size": hidden,
                 "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": 256, "global_head_dim": 512,
                 "sliding_window": window, "max_position_embeddings": context, "vocab_size": 262144, "dtype": "bfloat16"}, **more)
    return dict(GEMMA4, text_config=text)


# By the folder of the weights: (config.json, bytes of the BF16 weights, number of shards).
MODELS = {
    "gemma-4-E2B-it": (_gemma4(35, 5, 1536, 8, 1, 512, 131072, num_kv_shared_layers=20), 10200000000, 1),
    "gemma-4-E4B-it": (_gemma4(42, 6, 2560, 8, 2, 512, 131072, num_kv_shared_layers=18), 16000000000, 1),
    "gemma-4-26B-A4B-it": (_gemma4(30, 6, 2816, 16, 8, 1024, 262144, num_experts=128, top_k_experts=8,
                                   num_global_key_value_heads=2, enable_moe_block=True), 51600000000, 2),
    "gemma-4-31B-it": (_gemma4(60, 6, 5376, 32, 16, 1024, 262144, attention_k_eq_v=True, num_global_key_value_heads=4), 62600000000, 2),
    "gemma-3-270m-it": ({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "num_hidden_layers": 18,
                         "hidden_size": 640, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
                         "sliding_window": 512, "max_position_embeddings": 32768, "vocab_size": 262144,
                         "torch_dtype": "bfloat16"}, 540000000, 1),
    "qwen3-0.6B": (dict(QWEN3, num_hidden_layers=28, hidden_size=1024, num_attention_heads=16), 1500000000, 1),
    "qwen3-32B": (dict(QWEN3, num_hidden_layers=64, hidden_size=5120, num_attention_heads=64), 65500000000, 17),
    "Llama-2-7B": (LLAMA, 13500000000, 2),
    "DeepSeek-R1-W8A8": ({"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "num_hidden_layers": 61,
                          "hidden_size": 7168, "num_attention_heads": 128, "num_key_value_heads": 128, "kv_lora_rank": 512,
                          "qk_rope_head_dim": 64, "max_position_embeddings": 163840, "vocab_size": 129280,
                          "torch_dtype": "bfloat16"}, 680000000000, 163),
}
# What lies on every host of a platform, asked for or not: it takes no room.
PLATFORM_MODELS = {
    "a2": ("gemma-4-E2B-it", "gemma-4-E4B-it", "gemma-4-26B-A4B-it", "gemma-4-31B-it", "gemma-3-270m-it"),
    "a3": ("gemma-4-E2B-it", "gemma-4-E4B-it", "gemma-4-26B-A4B-it", "gemma-4-31B-it", "gemma-3-270m-it"),
    "310p": ("qwen3-0.6B", "qwen3-32B"),
    "none": (),
}
SHARD_BYTES = 4000000000


def folder(path, size_gb=None, context=None, quantized=False):
    """One folder of weights.

    A model that is not known here gets the shape of a plain decoder, of the size that its catalogue entry states.

    :returns: {path, config, size_bytes, shards, quantized}.
    """
    path = str(path).rstrip("/")
    config, size, shards = MODELS.get(path.rpartition("/")[2], (None, None, None))
    if config is None:
        size = int(float(size_gb or 1) * 1e9)
        config, shards = dict(LLAMA, max_position_embeddings=int(context or 32768), num_key_value_heads=8), -(-size // SHARD_BYTES)
    return {"path": path, "config": config, "size_bytes": size, "shards": shards, "quantized": bool(quantized)}


def folders(node):
    """Every folder of weights of a node, by path. The node has platform, models_directory, models and weights; see rehearsal.describe_node."""
    root = node["models_directory"].rstrip("/")
    names = node.get("models")
    names = PLATFORM_MODELS[node["platform"]] if names is None else names
    found = {"%s/%s" % (root, name): folder("%s/%s" % (root, name)) for name in names}
    for one in node.get("weights") or ():
        made = folder(one["path"], one.get("size_gb"), one.get("context"), one.get("quantized"))
        found[made["path"]] = made
    return [found[path] for path in sorted(found)]
