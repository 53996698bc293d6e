"""Sequence models: BERT, GPT-2 (prefill and decode), ViT-B/16, Transformer, wav2vec 2.0, DIEN-like."""

from __future__ import annotations

import numpy as np

from .net import Net, T


def heads(net: Net, x: T, n: int, swap: bool = True) -> T:
    """[B, S, C] -> [B, n, S, C/n], or [B, S, n, C/n] when `swap` is off."""
    batch, size, width = x.shape
    x = net.reshape(x, (batch, size, n, width // n))
    return net.transpose(x, (0, 2, 1, 3)) if swap else x


def merge(net: Net, x: T) -> T:
    """[B, H, S, D] -> [B, S, H * D]."""
    batch, n, size, dim = x.shape
    return net.reshape(net.transpose(x, (0, 2, 1, 3)), (batch, size, n * dim))


def _mha(
    net: Net,
    x: T,
    memory: T,
    name: str,
    n: int,
    mask: T | None = None,
    causal: bool = False,
    style: str = "div",
    gain: float = 1.0,
) -> T:
    width = x.shape[-1]
    q = heads(net, net.linear(x, name + ".q", width), n)
    k = heads(net, net.linear(memory, name + ".k", width), n, swap=False)
    v = heads(net, net.linear(memory, name + ".v", width), n)
    y = net.attention(q, k, v, mask, causal, k_bshd=True, style=style)
    return net.linear(merge(net, y), name + ".o", width, gain=gain)


def _mlp(net: Net, x: T, name: str, hidden: int, act: str, gain: float = 1.0) -> T:
    y = net.unary(act, net.linear(x, name + ".up", hidden, gain=2.0))
    return net.linear(y, name + ".down", x.shape[-1], gain=gain)


def bert(net: Net, seq: int = 128, width: int = 768, depth: int = 12, vocab: int = 30522, batch: int = 1) -> None:
    """Devlin et al. 2018: the encoder with its pooler, post-norm, erf GELU."""
    ids = net.input("input_ids", (batch, seq), "int64", high=vocab)
    mask = net.input("attention_mask", (batch, seq), "int64", ones=True)
    types = net.input("token_type_ids", (batch, seq), "int64", high=2)
    bias = net.mask_bias(mask)
    x = net.add(net.embedding(ids, "word", vocab, width), net.embedding(types, "type", 2, width))
    x = net.layer_norm(net.add(x, net.weight("position", (1, seq, width))), "embed.norm", 1e-12)
    n = max(1, width // 64)
    for i in range(depth):
        name = f"layer{i}"
        x = net.layer_norm(net.add(_mha(net, x, x, name + ".attn", n, bias), x), name + ".norm1", 1e-12)
        x = net.layer_norm(net.add(_mlp(net, x, name + ".mlp", 4 * width, "gelu"), x), name + ".norm2", 1e-12)
    net.output("last_hidden_state", x)
    net.output("pooler_output", net.unary("tanh", net.linear(net.take(x, 1, 0), "pooler", width)))


def _gpt2_block(net: Net, x: T, name: str, n: int, past: tuple[T, T] | None) -> tuple[T, T, T]:
    width = x.shape[-1]
    q, k, v = net.split(net.linear(net.layer_norm(x, name + ".norm1"), name + ".qkv", 3 * width), 2, 3)
    q, k, v = heads(net, q, n), heads(net, k, n), heads(net, v, n)
    if past is not None:
        k, v = net.concat([past[0], k], 2), net.concat([past[1], v], 2)
    y = merge(net, net.attention(q, k, v, causal=past is None))
    x = net.add(net.linear(y, name + ".o", width, gain=0.1), x)
    return net.add(x, _mlp(net, net.layer_norm(x, name + ".norm2"), name + ".mlp", 4 * width, "gelu_tanh", 0.1)), k, v


def gpt2(
    net: Net, seq: int = 128, past: int = 0, width: int = 768, depth: int = 12, vocab: int = 50257, batch: int = 1
) -> None:
    """Radford et al. 2019, the small model without its vocabulary head.

    `past` > 0: one decoding step that reads that many cached keys and values a layer as inputs and returns the grown
    caches. `past` = 0: a prefill of `seq` tokens that returns the caches.
    """
    n = max(1, width // 64)
    ids = net.input("input_ids", (batch, seq), "int64", high=vocab)
    caches = [
        (
            net.input(f"past.{i}.key", (batch, n, past, width // n)),
            net.input(f"past.{i}.value", (batch, n, past, width // n)),
        )
        if past
        else None
        for i in range(depth)
    ]
    positions = net.const("positions", np.arange(past, past + seq, dtype=np.int64).reshape(1, seq))
    x = net.add(net.embedding(ids, "wte", vocab, width), net.embedding(positions, "wpe", 1024, width))
    present: list[tuple[T, T]] = []
    for i in range(depth):
        x, k, v = _gpt2_block(net, x, f"h{i}", n, caches[i])
        present.append((k, v))
    net.output("last_hidden_state", net.layer_norm(x, "norm"))
    for i, (k, v) in enumerate(present):
        net.output(f"present.{i}.key", k)
        net.output(f"present.{i}.value", v)


def gpt2_prefill(net: Net, **sizes: int) -> None:
    """GPT-2 small, 128 tokens at once."""
    gpt2(net, **sizes)


def gpt2_decode(net: Net, past: int = 128, **sizes: int) -> None:
    """GPT-2 small, one token after 128 cached ones."""
    gpt2(net, seq=1, past=past, **sizes)


def vitb16(
    net: Net, size: int = 224, patch: int = 16, width: int = 768, depth: int = 12, classes: int = 1000, batch: int = 1
) -> None:
    """Dosovitskiy et al. 2020: ViT-B/16, pre-norm, class token; fused qkv projection."""
    x = net.conv(net.input("input", (batch, 3, size, size)), "patch", width, patch, patch, gain=1.0)
    tokens = (size // patch) ** 2
    x = net.transpose(net.reshape(x, (batch, width, tokens)), (0, 2, 1))
    x = net.concat([net.weight("cls", (batch, 1, width)), x], 1)
    x = net.add(x, net.weight("position", (1, tokens + 1, width), std=0.5))
    n = max(1, width // 64)
    for i in range(depth):
        name = f"block{i}"
        qkv = net.linear(net.layer_norm(x, name + ".norm1", 1e-6), name + ".qkv", 3 * width)
        qkv = net.transpose(net.reshape(qkv, (batch, tokens + 1, 3, n, width // n)), (2, 0, 3, 1, 4))
        q, k, v = (net.take(qkv, 0, j) for j in range(3))
        y = net.linear(merge(net, net.attention(q, k, v, style="sdpa")), name + ".o", width, gain=0.2)
        x = net.add(x, y)
        x = net.add(x, _mlp(net, net.layer_norm(x, name + ".norm2", 1e-6), name + ".mlp", 4 * width, "gelu", 0.2))
    x = net.layer_norm(x, "norm", 1e-6)
    net.output("logits", net.linear(net.take(x, 1, 0), "head", classes))


def transformer(net: Net, seq: int = 64, width: int = 512, depth: int = 6, vocab: int = 10000, batch: int = 1) -> None:
    """Vaswani et al. 2017, base: encoder and decoder, post-norm, ReLU, vocabulary head."""
    n, hidden = max(1, width // 64), 4 * width
    position = net.weight("position", (1, seq, width), std=0.5)
    source = net.input("source", (batch, seq), "int64", high=vocab)
    target = net.input("target", (batch, seq), "int64", high=vocab)
    memory = net.add(net.embedding(source, "embed.source", vocab, width), position)
    for i in range(depth):
        name = f"enc{i}"
        memory = net.layer_norm(net.add(memory, _mha(net, memory, memory, name + ".attn", n)), name + ".norm1")
        memory = net.layer_norm(net.add(memory, _mlp(net, memory, name + ".mlp", hidden, "relu")), name + ".norm2")
    x = net.add(net.embedding(target, "embed.target", vocab, width), position)
    for i in range(depth):
        name = f"dec{i}"
        x = net.layer_norm(net.add(x, _mha(net, x, x, name + ".self", n, causal=True)), name + ".norm1")
        x = net.layer_norm(net.add(x, _mha(net, x, memory, name + ".cross", n)), name + ".norm2")
        x = net.layer_norm(net.add(x, _mlp(net, x, name + ".mlp", hidden, "relu")), name + ".norm3")
    net.output("logits", net.linear(x, "head", vocab))


def wav2vec2(
    net: Net, samples: int = 32000, channels: int = 512, width: int = 768, depth: int = 12, batch: int = 1
) -> None:
    """Baevski et al. 2020, base: seven strided 1-D convolutions, a grouped positional convolution, the encoder."""
    x = net.reshape(net.input("audio", (batch, samples)), (batch, 1, samples))
    for i, (k, stride) in enumerate(((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))):
        x = net.conv(x, f"feature{i}", channels, k, stride, bias=False)
        x = net.unary("gelu", net.instance_norm(x, "feature0.norm") if i == 0 else x)
    x = net.linear(net.layer_norm(net.transpose(x, (0, 2, 1)), "feature.norm"), "project", width)
    frames = x.shape[1]
    y = net.conv(net.transpose(x, (0, 2, 1)), "position", width, 128, 1, 64, groups=16, gain=1.0)
    y = net.unary("gelu", net.slice(y, 2, 0, frames))
    x = net.layer_norm(net.add(x, net.transpose(y, (0, 2, 1))), "norm")
    n = max(1, width // 64)
    for i in range(depth):
        name = f"layer{i}"
        x = net.layer_norm(net.add(x, _mha(net, x, x, name + ".attn", n, style="sdpa")), name + ".norm1")
        x = net.layer_norm(net.add(x, _mlp(net, x, name + ".mlp", 4 * width, "gelu")), name + ".norm2")
    net.output("last_hidden_state", x)


def dien(net: Net, batch: int = 256, steps: int = 100, dim: int = 18, vocab: int = 10000) -> None:
    """After Zhou et al. 2018: interest extraction by a GRU, attention to the target, a second GRU, a dense head.

    The attention weights scale the inputs of the second GRU (the paper's AIGRU variant), so that both layers are
    plain GRU nodes.
    """
    user = net.embedding(net.input("user", (batch,), "int64", high=vocab), "user", vocab, dim)
    item, kind = (net.input(n, (batch,), "int64", high=vocab) for n in ("item", "category"))
    items, kinds = (net.input(n, (batch, steps), "int64", high=vocab) for n in ("hist_items", "hist_categories"))
    target = net.concat([net.embedding(item, "items", vocab, dim), net.embedding(kind, "kinds", vocab, dim)], -1)
    past = net.concat([net.embedding(items, "items", vocab, dim), net.embedding(kinds, "kinds", vocab, dim)], -1)
    width = 2 * dim
    states = net.recurrent(net.transpose(past, (1, 0, 2)), "gru0", width, "gru")
    states = net.transpose(states, (1, 0, 2))
    query = net.add(net.reshape(target, (batch, 1, width)), net.const("zeros", np.zeros((1, steps, 1), np.float32)))
    pair = net.concat([query, states, net.binary("sub", query, states), net.mul(query, states)], -1)
    score = net.unary("sigmoid", net.linear(pair, "att0", 80))
    score = net.linear(net.unary("sigmoid", net.linear(score, "att1", 40)), "att2", 1)
    score = net.softmax(net.reshape(score, (batch, 1, steps)))
    weighted = net.mul(states, net.reshape(score, (batch, steps, 1)))
    final = net.take(net.recurrent(net.transpose(weighted, (1, 0, 2)), "gru1", width, "gru"), 0, steps - 1)
    total = net.reduce("mean", past, (1,))
    x = net.concat([user, target, total, net.mul(target, total), final], -1)
    x = net.relu(net.linear(x, "fc0", 200, gain=2.0))
    x = net.relu(net.linear(x, "fc1", 80, gain=2.0))
    net.output("probability", net.softmax(net.linear(x, "fc2", 2)))
