#!/usr/bin/python3
"""Times a PyTorch training step of a GPT-2-shaped model with random weights on the CPU and prints one JSON line.

    bench/peers/torch_train.py --layers 12 --width 768 --heads 12 --vocab 50304 --lanes 4 --tokens 64 --steps 5

Written as its users write it: fused qkv, masked softmax attention, GELU, tied output layer, AdamW. FLOPs are counted as ours
are: 6 a matrix parameter and token, and 12 dh H a visible (query, key) pair and layer.
"""
import argparse
import json
import math
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, mask):
        lanes, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(lanes, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
        weights = F.softmax(scores.masked_fill(mask, float("-inf")), dim=-1)
        x = x + self.output((weights @ v).transpose(1, 2).reshape(lanes, tokens, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Model(nn.Module):
    def __init__(self, layers, width, heads, vocab, tokens):
        super().__init__()
        self.embedding, self.position = nn.Embedding(vocab, width), nn.Embedding(tokens, width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, ids, targets):
        tokens = ids.shape[1]
        mask = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
        x = self.embedding(ids) + self.position(torch.arange(tokens))
        for layer in self.layers:
            x = layer(x, mask)
        logits = self.norm(x) @ self.embedding.weight.t()
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def main():
    parser = argparse.ArgumentParser()
    for name, value in dict(layers=12, width=768, heads=12, vocab=50304, lanes=4, tokens=64, steps=5, threads=2).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    model = Model(a.layers, a.width, a.heads, a.vocab, a.tokens)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    ids, targets = (torch.randint(0, a.vocab, (a.lanes, a.tokens)) for _ in range(2))
    times = []
    for step in range(a.steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        model(ids, targets).backward()
        optimizer.step()
        if step:
            times.append(time.perf_counter() - start)
    median = statistics.median(times)
    matrices = a.vocab * a.width + a.layers * 12 * a.width**2
    flops = a.lanes * a.tokens * (6 * matrices + 12 * a.width * a.layers * (a.tokens + 1) / 2)
    print(json.dumps({"peer": f"PyTorch {torch.__version__}", "lanes": a.lanes, "tokens": a.tokens, "ms": round(median * 1e3, 1),
                      "tokens_per_s": round(a.lanes * a.tokens / median, 1), "gflops": round(flops / median / 1e9, 1)}))


main()
