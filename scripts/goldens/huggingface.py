#!/usr/bin/env python3
"""Goldens from Hugging Face's TransfoXLLMHeadModel and XLNetLMHeadModel (attn_type "uni"), in fp64.

    python3 -m venv --system-site-packages venv && venv/bin/pip install transformers==4.35.2
    venv/bin/python scripts/goldens/huggingface.py      writes tests/goldens/hf_*/

Each folder holds the checkpoint as its owner would have it (config.json with model.safetensors or pytorch_model.bin) and
golden.safetensors (fixture.py), whose weights and gradients are in Longhand's names and layout.
transformers 4.35.2 is the last that runs both: Transfo-XL's forward breaks from about 4.38 and is gone in 5."""
import collections
import json
import math
import pathlib

import torch
import transformers

from fixture import Data, write_golden, write_safetensors

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "tests" / "goldens"
WIDTH, HEADS, HEAD, INNER, LAYERS, VOCABULARY, MEMORY = 12, 3, 4, 19, 2, 29, 7


class Fp32Limits:
    """Transfo-XL casts its scores to fp32 and fills masked ones with the smallest number of the type before the cast,
    which overflows when that was fp64. The cast itself stays: these goldens are good to about 1e-8."""

    def __getattr__(self, name):
        return getattr(torch, name)

    @staticmethod
    def finfo(_):
        return torch.finfo(torch.float32)


transformers.models.transfo_xl.modeling_transfo_xl.torch = Fp32Limits()


def randomize(model, seed):
    """Weights that matter: the library's own are so small that every softmax is nearly flat. Rounded to fp32."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        gain = "layer_norm.weight" in name
        values = 0.25 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64) + (1.0 if gain else 0.0)
        parameter.data = values.to(torch.float32).to(torch.float64)


class TransfoXL:
    """div_val 1, no cutoffs and d_embed = d_model: one tied softmax with bias."""
    shape = dict(vocab_size=VOCABULARY, cutoffs=[], div_val=1, d_model=WIDTH, d_embed=WIDTH)
    trained = True

    def __init__(self, seed, **settings):
        self.config = transformers.TransfoXLConfig(
            n_head=HEADS, d_head=HEAD, d_inner=INNER, n_layer=LAYERS, mem_len=MEMORY, dropout=0.0, dropatt=0.0,
            adaptive=True, untie_r=True, sample_softmax=-1, tie_word_embeddings=True, **self.shape, **settings)
        self.model = transformers.TransfoXLLMHeadModel(self.config).double()
        randomize(self.model, seed)
        # The library keeps 1 / 10000^(2m/D) in fp32; in fp64 it would carry that rounding along.
        m = torch.arange(0, WIDTH, 2, dtype=torch.float64)
        self.model.transformer.pos_emb.inv_freq = 10000 ** (-m / WIDTH)

    def ours(self, of):
        return {"embedding.weight": of(self.model.transformer.word_emb.emb_layers[0].weight),
                "output.bias": of(self.model.crit.out_layers[0].bias)} | self.layers(of)

    def layers(self, of):
        out = {}
        for index, layer in enumerate(self.model.transformer.layers):
            a, f = f"layers.{index}.attention.", f"layers.{index}.feedforward."
            attention, ff = layer.dec_attn, layer.pos_ff
            out |= {a + "norm.weight": of(attention.layer_norm.weight), a + "norm.bias": of(attention.layer_norm.bias),
                    a + "qkv.weight": of(attention.qkv_net.weight), a + "position.weight": of(attention.r_net.weight),
                    a + "output.weight": of(attention.o_net.weight), a + "content_bias": of(attention.r_w_bias),
                    a + "position_bias": of(attention.r_r_bias),
                    f + "norm.weight": of(ff.layer_norm.weight), f + "norm.bias": of(ff.layer_norm.bias),
                    f + "up.weight": of(ff.CoreNet[0].weight), f + "up.bias": of(ff.CoreNet[0].bias),
                    f + "down.weight": of(ff.CoreNet[3].weight), f + "down.bias": of(ff.CoreNet[3].bias)}
        return out

    def segment(self, data, step, memory):
        tokens = data.tokens[step].T
        if memory is None:
            # mems=None would mean MEMORY rows of zeros, which take a share of every softmax: pass empty ones.
            memory = [torch.zeros(0, tokens.shape[0], WIDTH, dtype=torch.float64) for _ in range(LAYERS)]
        # Without labels the head gives log-probabilities; with them it would shift by one and average what is not 0.
        out = self.model(tokens, mems=memory)
        return out.prediction_scores.transpose(0, 1), out.mems

    def ours_config(self):
        c = self.config
        return dict(vocab_size=c.vocab_size, d_model=WIDTH, n_layer=LAYERS, n_head=HEADS, d_head=HEAD, d_ff=INNER,
                    mem_len=MEMORY, clamp_len=max(c.clamp_len, 0), same_length=bool(c.same_length),
                    norm="pre" if c.pre_lnorm else "post", final_norm=False, output_bias=True, activation="relu",
                    norm_eps=c.layer_norm_epsilon)

    def is_matrix(self, name):
        return name.endswith("weight") and "layer_norm" not in name


class AdaptiveTransfoXL(TransfoXL):
    """The form of the published WikiText-103 checkpoint: clusters of words, each narrower than the one before, with a
    projection of its own in and, but for the first cluster, the same one out. Longhand multiplies the embeddings and
    the first cluster's output out."""
    shape = dict(vocab_size=60, cutoffs=[10, 20, 40], div_val=2, d_embed=16, d_model=12, proj_share_all_but_first=True)
    trained = False

    def ours(self, of):
        t, crit, out = self.model.transformer, self.model.crit, {}
        embedding, head = t.word_emb, of(crit.out_projs[0])
        out = {"embedding.weight": torch.cat([of(layer.weight) @ of(projection).T for layer, projection in
                                              zip(embedding.emb_layers, embedding.emb_projs)]),
               "output.bias": torch.cat([of(layer.bias) for layer in crit.out_layers]),
               "output.cluster.weight": of(crit.cluster_weight) @ head.T,
               "output.cluster.bias": of(crit.cluster_bias),
               "output.cluster.0.weight": of(crit.out_layers[0].weight) @ head.T}
        for index in range(1, len(crit.out_layers)):
            out |= {f"output.cluster.{index}.weight": of(crit.out_layers[index].weight),
                    f"output.cluster.{index}.projection": of(crit.out_projs[index]).T}
        return out | self.layers(of)

    def ours_config(self):
        c = self.config
        widths = [c.d_embed // c.div_val ** index for index in range(1, len(c.cutoffs) + 1)]
        return super().ours_config() | dict(cutoffs=c.cutoffs, tail_widths=widths)

    def write_words(self, folder):
        """vocab.bin as the published one was written: torch.save of a tokenizer's dictionary, counter and all."""
        words = ["<eos>", "<unk>", *(f"w{index}" for index in range(2, 58)), "caf\u00e9", "@-@"]
        counter = collections.Counter(words)
        state = {"counter": counter, "special": ["<eos>"], "min_freq": 0, "lower_case": False, "idx2sym": words,
                 "sym2idx": collections.OrderedDict((word, index) for index, word in enumerate(words)), "eos_idx": 0}
        torch.save(state, folder / "vocab.bin", _use_new_zipfile_serialization=False)
        (folder / "vocab.txt").write_text("".join(word + "\n" for word in words), encoding="utf-8")


class XLNet:
    segments, memory, trained = False, MEMORY, True

    def __init__(self, seed, **settings):
        self.config = transformers.XLNetConfig(
            vocab_size=VOCABULARY, d_model=WIDTH, n_layer=LAYERS, n_head=HEADS, d_inner=INNER, attn_type="uni",
            dropout=0.0, mem_len=self.memory, bos_token_id=1, eos_token_id=2, **settings)
        assert self.config.d_head == HEAD  # d_model / n_head, no choice
        self.model = transformers.XLNetLMHeadModel(self.config).double()
        # 4.35.2 builds the causal mask with torch.ones(rows, columns, device), which no PyTorch takes; later versions
        # mend it to this.
        self.model.transformer.create_mask = lambda queries, memory: torch.ones(queries, queries + memory).triu(memory + 1)
        randomize(self.model, seed)

    def ours(self, of):
        t = self.model.transformer
        # q, k, v and r are transposed linears [D, H, dh]; o is [D, H dh] as it stands.
        turned = lambda p: of(p).reshape(WIDTH, HEADS * HEAD).T
        out = {"embedding.weight": of(t.word_embedding.weight), "output.bias": of(self.model.lm_loss.bias)}
        for index, layer in enumerate(t.layer):
            a, f = f"layers.{index}.attention.", f"layers.{index}.feedforward."
            attention, ff = layer.rel_attn, layer.ff
            out |= {a + "norm.weight": of(attention.layer_norm.weight), a + "norm.bias": of(attention.layer_norm.bias),
                    a + "qkv.weight": torch.cat([turned(attention.q), turned(attention.k), turned(attention.v)]),
                    a + "position.weight": turned(attention.r),
                    a + "output.weight": of(attention.o).reshape(WIDTH, HEADS * HEAD),
                    a + "content_bias": of(attention.r_w_bias), a + "position_bias": of(attention.r_r_bias),
                    f + "norm.weight": of(ff.layer_norm.weight), f + "norm.bias": of(ff.layer_norm.bias),
                    f + "up.weight": of(ff.layer_1.weight), f + "up.bias": of(ff.layer_1.bias),
                    f + "down.weight": of(ff.layer_2.weight), f + "down.bias": of(ff.layer_2.bias)}
            if self.segments:
                out |= {a + "segment_bias": of(attention.r_s_bias), a + "segment_embedding": of(attention.seg_embed)}
        return out

    def segment(self, data, step, memory):
        ids = data.segment_ids[step]
        # use_mems: in training the library keeps no memory by itself.
        out = self.model(data.tokens[step].T, mems=memory, token_type_ids=None if ids is None else ids.T, use_mems=True)
        return out.logits.transpose(0, 1), out.mems

    def ours_config(self):
        c = self.config
        return dict(vocab_size=VOCABULARY, d_model=WIDTH, n_layer=LAYERS, n_head=HEADS, d_head=HEAD, d_ff=INNER,
                    mem_len=self.memory, clamp_len=max(c.clamp_len, 0), scale_embedding=False, segments=self.segments,
                    norm="post", final_norm=False, output_bias=True, activation=c.ff_activation,
                    norm_eps=c.layer_norm_eps)

    def is_matrix(self, name):
        return name.endswith("weight") and "layer_norm" not in name or name.split(".")[-1] in "qkvor"


def add_groups(kind):
    kind.matrices = lambda self: [p for n, p in self.model.named_parameters() if self.is_matrix(n)]
    kind.vectors = lambda self: [p for n, p in self.model.named_parameters() if not self.is_matrix(n)]


class SegmentedXLNet(XLNet):
    """The library takes every memory row for segment 0, whatever it was: with a memory shorter than the segment, the
    tokens that become memory have that segment, and those before them have either."""
    segments, memory = True, 3

    @staticmethod
    def carry_segments(data):
        data.segment_ids = torch.randint(2, data.tokens.shape, generator=torch.Generator().manual_seed(5))
        data.segment_ids[:, -SegmentedXLNet.memory:] = 0


def main():
    for kind in (TransfoXL, XLNet):
        add_groups(kind)
    cases = [
        ("hf_transfo_xl_pre", TransfoXL, dict(pre_lnorm=True, same_length=True, clamp_len=4), "bin", "logprobs"),
        ("hf_transfo_xl_post", TransfoXL, dict(pre_lnorm=False, same_length=False, clamp_len=1000), "safetensors",
         "logprobs"),
        ("hf_xlnet", XLNet, dict(clamp_len=-1), "safetensors", "logits"),
        ("hf_xlnet_segments", SegmentedXLNet, dict(clamp_len=6), "safetensors", "logits"),
        ("hf_transfo_xl_adaptive", AdaptiveTransfoXL, dict(same_length=True, clamp_len=9), "safetensors", "logprobs"),
    ]
    for seed, (name, kind, settings, form, scores) in enumerate(cases, 1):
        folder = FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        make = lambda: kind(seed, **settings)
        model = make()
        data = Data(model.ours_config(), 2, 5, seed)
        if kind is SegmentedXLNet:
            kind.carry_segments(data)
        write_golden(folder / "golden.safetensors", make, model.ours_config(), data, scores, kind.trained)
        # As save_pretrained writes it: settings at their default are left out, so a reader has to know the defaults.
        config = model.config.to_diff_dict()
        (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        state = {key: value.to(torch.float32) for key, value in model.model.state_dict().items()}
        if kind is AdaptiveTransfoXL:
            model.write_words(folder)
            # Tensors that are shared are saved once by the library itself.
            parameters = dict(model.model.named_parameters())  # leaves out the second name of a shared one
            state = {key: value for key, value in state.items() if key in parameters or key.endswith("inv_freq")}
        if form == "bin":
            torch.save(state, folder / "pytorch_model.bin")
        else:
            write_safetensors(folder / "model.safetensors", state, {"format": "pt"})


if __name__ == "__main__":
    main()
