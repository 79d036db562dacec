"""What every golden has: three segments' logits with memory, the gradients of their mean loss, ten AdamW steps' losses.

A golden is one safetensors file that the engine's tests read (tests/core/goldens.cpp):
  metadata  longhand.config, and golden.* : lanes, segment, rate, decay
  weights   in Longhand's names, fp32
  tokens, targets [10, T, B] i32; segment_ids [10, T, B] u8 and document_start [10, T, B] i32 where the case has them
  logits [3, T, B, V] f32 (`logprobs` where the model gives log-probabilities alone)
  gradient.<name>   of mean over three segments of the mean loss, memory detached between segments
  losses, losses_decay [10] f64: before each update; the second with weight decay on matrices
A model that is not trained has no gradients and no losses. Where plain text can say it all, <golden>.txt has the token stream, the losses, and the log-probability of each token of
the first three segments of lane 0 after its first, a line each: for tests of the program.
"""
import json
import struct

import torch

SEGMENTS, STEPS, RATE, DECAY = 3, 10, 0.003, 0.1
TYPES = {torch.float64: "F64", torch.float32: "F32", torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8"}


def write_safetensors(path, tensors, metadata=None):
    """The format by hand, so that no package is needed: sorted names, header padded to 64 bytes, no time stamps."""
    header, blocks, begin = {}, [], 0
    if metadata:
        header["__metadata__"] = metadata
    # Wider types first: every tensor then begins at a multiple of its type's size.
    for name in sorted(tensors, key=lambda n: (-tensors[n].element_size(), n)):
        data = tensors[name].detach().contiguous().numpy().tobytes()
        header[name] = {"dtype": TYPES[tensors[name].dtype], "shape": list(tensors[name].shape),
                        "data_offsets": [begin, begin + len(data)]}
        blocks.append(data)
        begin += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blocks))


class Data:
    """A stream of random tokens, cut as the engine's loader cuts it: n = (N - 1) / B, lane b is tokens [b n, b n + n],
    step t takes T tokens of each lane and predicts the tokens after."""

    def __init__(self, config, lanes, segment, seed, segment_ids=False, documents=False):
        generator = torch.Generator().manual_seed(seed)
        n = STEPS * segment
        self.stream = torch.randint(config["vocab_size"], (lanes * n + 1,), generator=generator)
        self.tokens = self.stream[:-1].reshape(lanes, n).T.reshape(STEPS, segment, lanes)
        self.targets = self.stream[1:].reshape(lanes, n).T.reshape(STEPS, segment, lanes)
        self.segment_ids = [None] * STEPS
        if segment_ids:
            self.segment_ids = torch.randint(2, (STEPS, segment, lanes), generator=generator)
        self.starts = None
        if documents:  # the absolute position where the document of each token began
            begins = torch.rand(STEPS * segment, lanes, generator=generator) < 0.15
            at = torch.arange(STEPS * segment)[:, None] * begins
            self.starts = at.cummax(0).values.reshape(STEPS, segment, lanes)

    def document_start(self, step, memory):
        """First visible key of each token, counted from the first of `memory` rows."""
        if self.starts is None:
            return None
        segment = self.tokens.shape[1]
        return (self.starts[step] - (step * segment - memory)).clamp(min=0)


def losses_of(model, data, decay):
    """Ten steps of AdamW, one segment each, the memory carried from step to step."""
    groups = [{"params": model.matrices(), "weight_decay": decay}, {"params": model.vectors(), "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), eps=1e-8)
    memory, losses = None, []
    for step in range(STEPS):
        scores, memory = model.segment(data, step, memory)
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), data.targets[step].flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.tensor(losses, dtype=torch.float64)


def write_golden(path, make_model, config, data, scores_name="logits", trained=True):
    """`make_model()` gives the model with its initial weights, in fp64; it has segment(data, step, memory) ->
    (scores [T, B, V], memory), matrices() and vectors() (parameters with and without weight decay), and
    ours(of) -> {Longhand's name: of(parameter) in Longhand's layout}."""
    model = make_model()
    tensors = model.ours(lambda parameter: parameter.detach())
    memory, total, scores = None, 0, []
    for step in range(SEGMENTS):
        out, memory = model.segment(data, step, memory)
        scores.append(out)
        # Log-probabilities may stand for logits here: a second log-softmax changes nothing.
        total = total + torch.nn.functional.cross_entropy(out.flatten(0, 1), data.targets[step].flatten()) / SEGMENTS
    if trained:
        total.backward()
        tensors |= {"gradient." + name: value for name, value in model.ours(lambda parameter: parameter.grad).items()}
    tensors[scores_name] = torch.stack(scores)
    tensors = {name: value.detach().to(torch.float32) for name, value in tensors.items()}
    tensors["tokens"], tensors["targets"] = data.tokens.to(torch.int32), data.targets.to(torch.int32)
    if data.segment_ids[0] is not None:
        tensors["segment_ids"] = torch.stack(list(data.segment_ids)).to(torch.uint8)
    _, segment, lanes = data.tokens.shape
    if data.starts is not None:
        lengths = [min(step * segment, config["mem_len"]) for step in range(STEPS)]
        tensors["document_start"] = torch.stack(
            [data.document_start(step, length) for step, length in enumerate(lengths)]).to(torch.int32)
    losses = torch.zeros(0)
    if trained:
        losses = tensors["losses"] = losses_of(make_model(), data, 0.0)
        tensors["losses_decay"] = losses_of(make_model(), data, DECAY)
    metadata = {"longhand.config": json.dumps(config), "golden.lanes": str(lanes), "golden.segment": str(segment),
                "golden.rate": str(RATE), "golden.decay": str(DECAY)}
    write_safetensors(path, tensors, metadata)
    if data.segment_ids[0] is None and data.starts is None:
        seen = tensors[scores_name][:, :, 0].flatten(0, 1).log_softmax(-1)
        chosen = seen.gather(1, data.targets[:SEGMENTS, :, 0].reshape(-1, 1))
        lines = [data.stream.tolist(), losses.tolist(), chosen.flatten().tolist()]
        path.with_suffix(".txt").write_text("".join(" ".join(map(str, line)) + "\n" for line in lines))
    steps = f", ten steps {losses[0]:.4f} to {losses[-1]:.4f}" if trained else ""
    print(f"{path}: loss {total.item():.6f}{steps}")
