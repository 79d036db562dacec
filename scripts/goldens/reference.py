#!/usr/bin/env python3
"""Goldens from the formulas of docs/MODEL.md, written out in PyTorch with autograd, in fp64.

    python3 scripts/goldens/reference.py            writes tests/goldens/reference_*.safetensors

Needs PyTorch 1.13 or later (Debian: python3-torch)."""
import math
import pathlib

import torch

from fixture import DECAY, Data, losses_of, write_golden

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "tests" / "goldens"
SHAPE = dict(vocab_size=29, d_model=12, n_layer=2, n_head=3, d_head=5, d_ff=19, mem_len=7)
CASES = {  # name: the configuration beyond SHAPE, and what the data carry
    "pre": (dict(norm="pre"), {}),
    "pre_same_length_clamp": (dict(norm="pre", final_norm=False, activation="relu", same_length=True, clamp_len=4), {}),
    "post_same_length_clamp": (
        dict(norm="post", activation="relu", output_bias=True, same_length=True, clamp_len=6), {}),
    "topk": (dict(norm="pre", topk=3), {}),
    # No clamp with top-k: a token that comes twice beyond clamp_len has equal scores, and rounding would break the tie.
    "topk_post_same_length": (dict(norm="post", topk=4, same_length=True, scale_embedding=False), {}),
    "segments": (dict(norm="post", segments=True, scale_embedding=False, norm_eps=1e-12, output_bias=True),
                 dict(segment_ids=True)),
    "documents": (dict(norm="pre"), dict(documents=True)),
    "lora": (dict(norm="pre", lora_rank=2, lora_alpha=3.0, lora_sites="q,k,v,position,output,up,down"), {}),
    "adapters": (dict(norm="pre", adapter_width=4), {}),
    "lora_adapters_post": (
        dict(norm="post", activation="relu", clamp_len=6, lora_rank=3, lora_alpha=6.0, lora_sites="k,position,up",
             adapter_width=3, adapter_sites="feedforward"), {}),
}


class Reference:
    def __init__(self, config, seed):
        self.c = dict(dict(clamp_len=0, topk=0, same_length=False, scale_embedding=True, segments=False,
                           final_norm=config["norm"] == "pre", output_bias=False, activation="gelu", norm_eps=1e-5,
                           lora_rank=0, adapter_width=0, adapter_sites=""),
                      **config)
        generator = torch.Generator().manual_seed(seed)
        width, heads, inner = config["d_model"], config["n_head"] * config["d_head"], config["d_ff"]
        self.w = {}

        def add(name, *shape, mean=0.0, deviation=0.25):
            values = mean + deviation * torch.randn(*shape, generator=generator, dtype=torch.float64)
            # Rounded to fp32, which is what the file holds.
            self.w[name] = values.to(torch.float32).to(torch.float64).requires_grad_()

        def add_norm(name):
            add(name + ".weight", width, mean=1.0)
            add(name + ".bias", width)

        add("embedding.weight", config["vocab_size"], width, deviation=0.4)
        for layer in range(config["n_layer"]):
            at = f"layers.{layer}."
            add_norm(at + "attention.norm")
            add(at + "attention.qkv.weight", 3 * heads, width)
            add(at + "attention.position.weight", heads, width)
            add(at + "attention.output.weight", width, heads)
            for bias in ["content_bias", "position_bias"] + ["segment_bias"] * self.c["segments"]:
                add(at + "attention." + bias, config["n_head"], config["d_head"])
            if self.c["segments"]:
                add(at + "attention.segment_embedding", 2, config["n_head"], config["d_head"], deviation=1.0)
            add_norm(at + "feedforward.norm")
            add(at + "feedforward.up.weight", inner, width)
            add(at + "feedforward.up.bias", inner)
            add(at + "feedforward.down.weight", width, inner)
            add(at + "feedforward.down.bias", width)
            if self.c["lora_rank"]:
                for site in config["lora_sites"].split(","):
                    name = at + ("feedforward." if site in ("up", "down") else "attention.") + site + ".lora_"
                    add(name + "a", config["lora_rank"], dict(output=heads, down=inner).get(site, width))
                    add(name + "b", dict(output=width, down=width, up=inner).get(site, heads), config["lora_rank"])
            if self.c["adapter_width"]:
                for part in (self.c["adapter_sites"] or "attention,feedforward").split(","):
                    name = at + part + ".adapter."
                    add(name + "down.weight", config["adapter_width"], width)
                    add(name + "down.bias", config["adapter_width"])
                    add(name + "up.weight", width, config["adapter_width"])
                    add(name + "up.bias", width)
        if self.c["final_norm"]:
            add_norm("norm")
        if self.c["output_bias"]:
            add("output.bias", config["vocab_size"])
        self.narrowest_gap = math.inf  # between the last kept and the first dropped score

    def ours(self, of):
        return {name: of(parameter) for name, parameter in self.w.items()}

    @staticmethod
    def is_matrix(name):
        return name.endswith((".weight", ".lora_a", ".lora_b")) and "norm" not in name

    def matrices(self):
        return [p for name, p in self.w.items() if self.is_matrix(name)]

    def vectors(self):
        return [p for name, p in self.w.items() if not self.is_matrix(name)]

    def norm(self, name, x):
        return torch.nn.functional.layer_norm(
            x, x.shape[-1:], self.w[name + ".weight"], self.w[name + ".bias"], self.c["norm_eps"])

    def updated(self, name, x):
        """(alpha / r) B A x beside the matrix of a name like layers.0.feedforward.up, 0 where it has no update."""
        a, b = self.w.get(name + ".lora_a"), self.w.get(name + ".lora_b")
        return 0 if a is None else x @ a.T @ b.T * (self.c["lora_alpha"] / self.c["lora_rank"])

    def activation(self, x):
        return {"gelu": torch.nn.functional.gelu, "relu": torch.relu}[self.c["activation"]](x)

    def adapted(self, at, y):
        """y + W_up act(W_down y + b_down) + b_up, where the part of a layer has an adapter."""
        at, w = at + "adapter.", self.w
        if at + "up.weight" not in w:
            return y
        z = y @ w[at + "down.weight"].T + w[at + "down.bias"]
        return y + self.activation(z) @ w[at + "up.weight"].T + w[at + "up.bias"]

    def attention(self, at, context, queries, visible, segment_ids):
        """context [K, B, D]; the last `queries` rows ask; visible [T, K, B]; segment_ids [K, B] or None."""
        c, w = self.c, self.w
        keys, lanes, _ = context.shape
        memory, heads = keys - queries, (c["n_head"], c["d_head"])
        q, k, v = (context @ w[at + "qkv.weight"].T).reshape(keys, lanes, 3, -1).unbind(2)
        q, k, v = ((x + self.updated(at + name, context)).reshape(keys, lanes, *heads)
                   for x, name in ((q, "q"), (k, "k"), (v, "v")))
        q = q[memory:]
        # E(d) and R[d] by distance; the query i stands at key i + M.
        d = torch.arange(queries)[:, None] + memory - torch.arange(keys)[None, :]
        table = torch.arange(keys, dtype=torch.float64)
        if c["clamp_len"]:
            table = table.clamp(max=c["clamp_len"])
        frequency = 10000 ** (-2 * torch.arange(c["d_model"] // 2, dtype=torch.float64) / c["d_model"])
        phase = table[:, None] * frequency
        encoding = torch.cat([phase.sin(), phase.cos()], 1)
        r = (encoding @ w[at + "position.weight"].T + self.updated(at + "position", encoding)).reshape(keys, *heads)
        r = r[d.clamp(min=0)]
        a = torch.einsum("ibhc,jbhc->ijbh", q + w[at + "content_bias"], k)
        a = a + torch.einsum("ibhc,ijhc->ijbh", q + w[at + "position_bias"], r)
        if c["segments"]:
            other = (segment_ids[memory:, None] != segment_ids[None, :])[..., None]  # [T, K, B, 1]
            terms = torch.einsum("ibhc,ehc->eibh", q + w[at + "segment_bias"], w[at + "segment_embedding"])
            a = a + torch.where(other, terms[1][:, None], terms[0][:, None])
        a = (a / math.sqrt(c["d_head"])).masked_fill(~visible[..., None], -math.inf)
        if c["topk"]:
            ordered = a.detach().sort(1, descending=True).values
            if keys > c["topk"]:
                last, first = ordered[:, c["topk"] - 1], ordered[:, c["topk"]]
                gaps = (last - first)[first > -math.inf]
                self.narrowest_gap = min([self.narrowest_gap] + gaps.tolist())
                a = a.masked_fill(a.detach() < last[:, None], -math.inf)
        out = torch.einsum("ijbh,jbhc->ibhc", a.softmax(1), v).flatten(2)
        return self.adapted(at, out @ w[at + "output.weight"].T + self.updated(at + "output", out))

    def feedforward(self, at, x):
        w = self.w
        inner = self.activation(x @ w[at + "up.weight"].T + self.updated(at + "up", x) + w[at + "up.bias"])
        out = inner @ w[at + "down.weight"].T + self.updated(at + "down", inner) + w[at + "down.bias"]
        return self.adapted(at, out)

    def segment(self, data, step, memory):
        c, w = self.c, self.w
        tokens = data.tokens[step]
        queries, lanes = tokens.shape
        memory = memory or ([torch.zeros(0, lanes, c["d_model"], dtype=torch.float64)] * c["n_layer"],
                            torch.zeros(0, lanes, dtype=torch.int64))
        rows = memory[0][0].shape[0]
        d = torch.arange(queries)[:, None] + rows - torch.arange(rows + queries)[None, :]
        visible = d >= 0
        if c["same_length"]:
            visible = visible & (d <= c["mem_len"] - 1)
        visible = visible[..., None].expand(-1, -1, lanes)
        starts = data.document_start(step, rows)
        if starts is not None:
            visible = visible & (torch.arange(rows + queries)[None, :, None] >= starts[:, None])
        ids = data.segment_ids[step]
        ids = torch.cat([memory[1], torch.zeros_like(tokens) if ids is None else ids])

        def kept(old, new):
            return torch.cat([old, new])[max(0, rows + queries - c["mem_len"]):].detach()

        h = w["embedding.weight"][tokens] * (math.sqrt(c["d_model"]) if c["scale_embedding"] else 1)
        new_memory = []
        for layer in range(c["n_layer"]):
            new_memory.append(kept(memory[0][layer], h))
            context = torch.cat([memory[0][layer], h])
            a, f = f"layers.{layer}.attention.", f"layers.{layer}.feedforward."
            if c["norm"] == "pre":
                x = h + self.attention(a, self.norm(a + "norm", context), queries, visible, ids)
                h = x + self.feedforward(f, self.norm(f + "norm", x))
            else:
                x = self.norm(a + "norm", h + self.attention(a, context, queries, visible, ids))
                h = self.norm(f + "norm", x + self.feedforward(f, x))
        if c["final_norm"]:
            h = self.norm("norm", h)
        logits = h @ w["embedding.weight"].T
        if c["output_bias"]:
            logits = logits + w["output.bias"]
        return logits, (new_memory, ids[max(0, rows + queries - c["mem_len"]):])


def narrowest_gap(config, seed):
    """Over the ten training steps, with and without weight decay."""
    gaps = []
    for decay in (0.0, DECAY):
        model = Reference(config, seed)
        losses_of(model, Data(config, 2, 5, seed), decay)
        gaps.append(model.narrowest_gap)
    return min(gaps)


def main():
    FOLDER.mkdir(exist_ok=True)
    for name, (settings, carries) in CASES.items():
        config = dict(SHAPE, **settings)
        # Rounding in fp32 (1e-6) would decide which of two nearly equal scores is kept: take data without such a pair.
        seed = next(s for s in range(1, 100) if not config.get("topk") or narrowest_gap(config, s) > 1e-4)
        write_golden(FOLDER / f"reference_{name}.safetensors", lambda: Reference(config, seed), config,
                     Data(config, 2, 5, seed, **carries))


if __name__ == "__main__":
    main()
