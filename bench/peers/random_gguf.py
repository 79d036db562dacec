#!/usr/bin/env python3
"""Writes a model of 1.1e9 drawn parameters for llama.cpp: its llama architecture in TinyLlama's shape, weights F16.

    bench/peers/random_gguf.py FILE        (needs the packages gguf and numpy)

The vocabulary is made up: llama-bench draws token ids and reads no text.
"""
import sys

import gguf
import numpy

LAYERS, WIDTH, HEADS, KEY_HEADS, FEED_FORWARD, VOCABULARY, CONTEXT = 22, 2048, 32, 4, 5632, 32000, 2048


def add_vocabulary(writer):
    special = ["<unk>", "<s>", "</s>"]
    tokens = special + [f"<0x{byte:02X}>" for byte in range(256)]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL] + [gguf.TokenType.BYTE] * 256
    words = VOCABULARY - len(tokens)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens + [f"\u2581w{i}" for i in range(words)])
    writer.add_token_scores([0.0] * len(tokens) + [-float(i) for i in range(words)])
    writer.add_token_types(kinds + [gguf.TokenType.NORMAL] * words)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def main():
    writer = gguf.GGUFWriter(sys.argv[1], "llama")
    writer.add_name("random")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    add_vocabulary(writer)

    draw = numpy.random.default_rng(1)
    parameters = 0

    def matrix(name, rows, columns):
        nonlocal parameters
        parameters += rows * columns
        values = draw.random((rows, columns), dtype=numpy.float32)
        values -= 0.5
        values *= 0.07
        writer.add_tensor(f"{name}.weight", values.astype(numpy.float16))

    def gain(name):
        writer.add_tensor(f"{name}.weight", numpy.ones(WIDTH, numpy.float32))

    key_width = WIDTH // HEADS * KEY_HEADS
    matrix("token_embd", VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        gain(f"{block}.attn_norm")
        matrix(f"{block}.attn_q", WIDTH, WIDTH)
        matrix(f"{block}.attn_k", key_width, WIDTH)
        matrix(f"{block}.attn_v", key_width, WIDTH)
        matrix(f"{block}.attn_output", WIDTH, WIDTH)
        gain(f"{block}.ffn_norm")
        matrix(f"{block}.ffn_gate", FEED_FORWARD, WIDTH)
        matrix(f"{block}.ffn_up", FEED_FORWARD, WIDTH)
        matrix(f"{block}.ffn_down", WIDTH, FEED_FORWARD)
    gain("output_norm")
    matrix("output", VOCABULARY, WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{sys.argv[1]}: {parameters} parameters in matrices")


main()
