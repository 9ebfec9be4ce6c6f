# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the two models of the real vLLM tier, inside the image build: `make_models.py FOLDER`.

tiny-gemma-3 has random weights and babbles. tiny-gemma-4 was taught by heart what the endpoint gate asks, since only a model that answers
can show that the true server's templates, reasoning parser and tool call parser work.
"""

from __future__ import annotations

import string
import sys
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models

# One token a character, and the marks of both families: what is encoded decodes to itself, as `vllm bench serve` wants it.
CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " \n"
MARKS = ["<pad>", "<eos>", "<bos>", "<unk>"]
GEMMA_3_MARKS = ["<start_of_turn>", "<end_of_turn>"]
GEMMA_4_MARKS = ["<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>",
                 "<tool_response|>", '<|"|>']
GEMMA_3_TEMPLATE = """\
{{ bos_token }}{% for message in messages %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}
{{ message['content'] }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""
GEMMA_4_TEMPLATE = """\
{{ bos_token }}{% for tool in tools or [] %}<|tool>{{ tool['function']['name'] }}<tool|>{% endfor %}\
{% for message in messages %}<|turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}
{{ message['content'] }}<turn|>
{% endfor %}{% if add_generation_prompt %}<|turn>model
{% endif %}"""

# [(question, tools, answer)] that tiny-gemma-4 learns by heart; the questions are those of the endpoint gate.
LESSONS = (
    ("What is the capital of France? Answer with one word.", None, "<|channel>thought\nIt is Paris.<channel|>Paris<turn|>"),
    ("What is the weather in Paris? Call the function get_weather to find out.", [{"type": "function", "function": {"name": "get_weather"}}],
     '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|><turn|>'),
)


def tokenizer(marks, template, end):
    """A fast tokenizer with those special tokens and that chat template."""
    vocabulary = {token: number for number, token in enumerate(MARKS + marks + list(CHARACTERS))}
    plain = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    plain.decoder = decoders.Fuse()
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token=end, bos_token="<bos>", unk_token="<unk>",
        additional_special_tokens=marks, clean_up_tokenization_spaces=False, model_max_length=8192)
    made.chat_template = template
    return made


def gemma_3(vocabulary, end):
    """Two sliding layers and a full one, as in every Gemma 3."""
    return transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=1,
        head_dim=32, sliding_window=512, max_position_embeddings=4096, query_pre_attn_scalar=32, pad_token_id=0, eos_token_id=end,
        bos_token_id=2, layer_types=["sliding_attention", "sliding_attention", "full_attention"]))


def gemma_4(vocabulary, end):
    """What sets Gemma 4 E2B and E4B apart: wider heads in full layers, embeddings per layer, layers that share the cache of others."""
    return transformers.Gemma4ForCausalLM(transformers.Gemma4TextConfig(
        vocab_size=vocabulary, vocab_size_per_layer_input=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=1, head_dim=32, global_head_dim=64, hidden_size_per_layer_input=16,
        num_kv_shared_layers=2, sliding_window=512, max_position_embeddings=8192, final_logit_softcapping=30.0, pad_token_id=0,
        eos_token_id=[1, end], bos_token_id=2,
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"]))


def teach(model, words, steps=300, enough=0.005):
    """Train until every answer is known by heart; the last loss."""
    rows = []
    for question, tools, answer in LESSONS:
        prompt = words.apply_chat_template([{"role": "user", "content": question}], tools=tools, add_generation_prompt=True, tokenize=False)
        asked, told = (words(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer))
        rows.append((asked + told, [-100] * len(asked) + told))
    longest = max(len(tokens) for tokens, _labels in rows)
    tokens = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens, _labels in rows])
    labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _tokens, labels in rows])
    mask = (torch.arange(longest)[None, :] < torch.tensor([[len(tokens)] for tokens, _labels in rows])).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    model.train()
    for step in range(steps):
        loss = model(input_ids=tokens, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if loss.item() < enough:
            break
    return step + 1, loss.item()


def save(model, words, folder):
    model.to(torch.bfloat16)
    state = model.state_dict()
    for layer in range(model.config.num_hidden_layers):
        # The true checkpoints keep these also in layers that use another's cache, and vLLM insists on them.
        own = "model.layers.%d.self_attn.k_norm.weight" % layer
        state.setdefault(own, torch.ones_like(state[own.replace("k_norm", "q_norm")]))
    model.save_pretrained(folder, state_dict=state)
    words.save_pretrained(folder)


def main(root):
    torch.manual_seed(20260410)
    words = tokenizer(GEMMA_3_MARKS, GEMMA_3_TEMPLATE, "<end_of_turn>")
    model = gemma_3(len(words), words.convert_tokens_to_ids("<end_of_turn>"))
    with torch.no_grad():
        # Marks are never the likeliest token, so that an answer is text and goes on for as long as it may.
        model.get_input_embeddings().weight[:len(MARKS + GEMMA_3_MARKS)] = 0
    save(model, words, root / "tiny-gemma-3")

    words = tokenizer(GEMMA_4_MARKS, GEMMA_4_TEMPLATE, "<turn|>")
    model = gemma_4(len(words), words.convert_tokens_to_ids("<turn|>"))
    steps, loss = teach(model, words)
    print("tiny-gemma-4: %d steps, loss %.4f" % (steps, loss))
    if loss > 0.05:
        sys.exit("tiny-gemma-4 did not learn its answers: loss %.3f" % loss)
    save(model, words, root / "tiny-gemma-4")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
