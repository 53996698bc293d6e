"""Image models: ResNet-50 v1.5, MobileNetV2, Inception-v3, EfficientNet-B0, the DCGAN generator, CRNN."""

from __future__ import annotations

from .net import Ints, Net, T


def conv_bn(
    net: Net,
    x: T,
    name: str,
    cout: int,
    k: Ints,
    stride: Ints = 1,
    pad: Ints = 0,
    groups: int = 1,
    act: str = "relu",
    scale: float = 1.0,
) -> T:
    """Convolution without bias, batch normalisation, optional activation."""
    x = net.conv(x, name + ".conv", cout, k, stride, pad, groups, bias=False)
    x = net.batch_norm(x, name + ".bn", scale)
    return net.unary(act, x) if act else x


def _classify(net: Net, x: T, classes: int) -> None:
    x = net.global_avg_pool(x)
    net.output("logits", net.linear(net.reshape(x, (x.shape[0], x.shape[1])), "fc", classes))


def resnet50(
    net: Net,
    size: int = 224,
    width: int = 64,
    layers: tuple[int, ...] = (3, 4, 6, 3),
    classes: int = 1000,
    batch: int = 1,
) -> None:
    """He et al. 2015, with the stride in the 3x3 convolution (v1.5)."""
    x = conv_bn(net, net.input("input", (batch, 3, size, size)), "stem", width, 7, 2, 3)
    x = net.pool("max_pool", x, 3, 2, 1)
    for stage, blocks in enumerate(layers):
        mid = width << stage
        for block in range(blocks):
            name, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            y = conv_bn(net, x, name + ".1", mid, 1)
            y = conv_bn(net, y, name + ".2", mid, 3, stride, 1)
            y = conv_bn(net, y, name + ".3", 4 * mid, 1, act="", scale=0.4)
            if not block:
                x = conv_bn(net, x, name + ".down", 4 * mid, 1, stride, act="")
            x = net.relu(net.add(y, x))
    _classify(net, x, classes)


def _round8(value: float) -> int:
    new = max(8, int(value + 4) // 8 * 8)
    return new + 8 if new < 0.9 * value else new


def mobilenetv2(
    net: Net, size: int = 224, width: float = 1.0, depth: int = 99, classes: int = 1000, batch: int = 1
) -> None:
    """Sandler et al. 2018; `depth` caps the repeats of a stage."""
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    x = conv_bn(net, net.input("input", (batch, 3, size, size)), "stem", _round8(32 * width), 3, 2, 1, act="relu6")
    for stage, (expand, channels, repeats, first) in enumerate(stages):
        for block in range(min(repeats, depth)):
            name, stride, cin = f"block{stage}.{block}", 1 if block else first, x.shape[1]
            cout = _round8(channels * width)
            y = conv_bn(net, x, name + ".expand", cin * expand, 1, act="relu6") if expand > 1 else x
            y = conv_bn(net, y, name + ".dw", cin * expand, 3, stride, 1, groups=cin * expand, act="relu6")
            y = conv_bn(net, y, name + ".project", cout, 1, act="", scale=0.7)
            x = net.add(x, y) if stride == 1 and cin == cout else y
    x = conv_bn(net, x, "head", _round8(1280 * max(1.0, width)), 1, act="relu6")
    _classify(net, x, classes)


def efficientnetb0(net: Net, size: int = 224, depth: int = 99, classes: int = 1000, batch: int = 1) -> None:
    """Tan and Le 2019, variant B0 with squeeze-excite; `depth` caps the repeats of a stage."""
    stages = (
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    )
    x = conv_bn(net, net.input("input", (batch, 3, size, size)), "stem", 32, 3, 2, 1, act="silu")
    for stage, (expand, cout, repeats, first, k) in enumerate(stages):
        for block in range(min(repeats, depth)):
            name, stride, cin = f"block{stage}.{block}", 1 if block else first, x.shape[1]
            y = conv_bn(net, x, name + ".expand", cin * expand, 1, act="silu") if expand > 1 else x
            y = conv_bn(net, y, name + ".dw", cin * expand, k, stride, k // 2, groups=cin * expand, act="silu")
            gate = net.conv(net.global_avg_pool(y), name + ".se.reduce", max(1, cin // 4), 1)
            gate = net.conv(net.unary("silu", gate), name + ".se.expand", cin * expand, 1, gain=1.0)
            y = net.mul(net.unary("sigmoid", gate), y)
            y = conv_bn(net, y, name + ".project", cout, 1, act="", scale=0.7)
            x = net.add(y, x) if stride == 1 and cin == cout else y
    x = conv_bn(net, x, "head", 1280, 1, act="silu")
    _classify(net, x, classes)


def _inception_a(net: Net, x: T, name: str, pool: int, div: int) -> T:
    a = conv_bn(net, x, name + ".1x1", 64 // div, 1)
    b = conv_bn(net, conv_bn(net, x, name + ".5x5a", 48 // div, 1), name + ".5x5b", 64 // div, 5, pad=2)
    c = conv_bn(net, conv_bn(net, x, name + ".3x3a", 64 // div, 1), name + ".3x3b", 96 // div, 3, pad=1)
    c = conv_bn(net, c, name + ".3x3c", 96 // div, 3, pad=1)
    d = conv_bn(net, net.pool("avg_pool", x, 3, 1, 1), name + ".pool", pool // div, 1)
    return net.concat([a, b, c, d], 1)


def _inception_b(net: Net, x: T, name: str, div: int) -> T:
    a = conv_bn(net, x, name + ".3x3", 384 // div, 3, 2)
    b = conv_bn(net, conv_bn(net, x, name + ".da", 64 // div, 1), name + ".db", 96 // div, 3, pad=1)
    b = conv_bn(net, b, name + ".dc", 96 // div, 3, 2)
    return net.concat([a, b, net.pool("max_pool", x, 3, 2)], 1)


def _inception_c(net: Net, x: T, name: str, mid: int, div: int) -> T:
    mid, out = mid // div, 192 // div
    a = conv_bn(net, x, name + ".1x1", out, 1)
    b = conv_bn(net, conv_bn(net, x, name + ".7a", mid, 1), name + ".7b", mid, (1, 7), pad=(0, 3))
    b = conv_bn(net, b, name + ".7c", out, (7, 1), pad=(3, 0))
    c = conv_bn(net, x, name + ".da", mid, 1)
    for i, (k, pad, width) in enumerate(
        (((7, 1), (3, 0), mid), ((1, 7), (0, 3), mid), ((7, 1), (3, 0), mid), ((1, 7), (0, 3), out))
    ):
        c = conv_bn(net, c, f"{name}.d{i}", width, k, pad=pad)
    d = conv_bn(net, net.pool("avg_pool", x, 3, 1, 1), name + ".pool", out, 1)
    return net.concat([a, b, c, d], 1)


def _inception_d(net: Net, x: T, name: str, div: int) -> T:
    a = conv_bn(net, conv_bn(net, x, name + ".3a", 192 // div, 1), name + ".3b", 320 // div, 3, 2)
    b = conv_bn(net, x, name + ".7a", 192 // div, 1)
    b = conv_bn(net, b, name + ".7b", 192 // div, (1, 7), pad=(0, 3))
    b = conv_bn(net, b, name + ".7c", 192 // div, (7, 1), pad=(3, 0))
    b = conv_bn(net, b, name + ".7d", 192 // div, 3, 2)
    return net.concat([a, b, net.pool("max_pool", x, 3, 2)], 1)


def _inception_e(net: Net, x: T, name: str, div: int) -> T:
    def fork(y: T, stem: str) -> T:
        return net.concat(
            [
                conv_bn(net, y, stem + "h", 384 // div, (1, 3), pad=(0, 1)),
                conv_bn(net, y, stem + "v", 384 // div, (3, 1), pad=(1, 0)),
            ],
            1,
        )

    a = conv_bn(net, x, name + ".1x1", 320 // div, 1)
    b = fork(conv_bn(net, x, name + ".3", 384 // div, 1), name + ".3")
    c = conv_bn(net, conv_bn(net, x, name + ".da", 448 // div, 1), name + ".db", 384 // div, 3, pad=1)
    d = conv_bn(net, net.pool("avg_pool", x, 3, 1, 1), name + ".pool", 192 // div, 1)
    return net.concat([a, b, fork(c, name + ".d"), d], 1)


def inceptionv3(net: Net, size: int = 299, div: int = 1, classes: int = 1000, batch: int = 1) -> None:
    """Szegedy et al. 2015, without the auxiliary head; `div` divides every width."""
    x = conv_bn(net, net.input("input", (batch, 3, size, size)), "stem1", 32 // div, 3, 2)
    x = conv_bn(net, x, "stem2", 32 // div, 3)
    x = net.pool("max_pool", conv_bn(net, x, "stem3", 64 // div, 3, pad=1), 3, 2)
    x = conv_bn(net, x, "stem4", 80 // div, 1)
    x = net.pool("max_pool", conv_bn(net, x, "stem5", 192 // div, 3), 3, 2)
    for i, pool in enumerate((32, 64, 64)):
        x = _inception_a(net, x, f"a{i}", pool, div)
    x = _inception_b(net, x, "b", div)
    for i, mid in enumerate((128, 160, 160, 192)):
        x = _inception_c(net, x, f"c{i}", mid, div)
    x = _inception_d(net, x, "d", div)
    for i in range(2):
        x = _inception_e(net, x, f"e{i}", div)
    _classify(net, x, classes)


def dcgan(net: Net, noise: int = 100, width: int = 64, channels: int = 3, batch: int = 1) -> None:
    """Radford et al. 2015: the generator for 64x64 images."""
    x = net.input("noise", (batch, noise, 1, 1))
    for i, factor in enumerate((8, 4, 2, 1)):
        x = net.conv_transpose(x, f"up{i}", width * factor, 4, 2 if i else 1, 1 if i else 0)
        x = net.relu(net.batch_norm(x, f"bn{i}"))
    net.output("image", net.unary("tanh", net.conv_transpose(x, "up4", channels, 4, 2, 1)))


def crnn(
    net: Net, height: int = 32, length: int = 320, width: int = 64, hidden: int = 256, classes: int = 37, batch: int = 1
) -> None:
    """Shi et al. 2015: convolutions over a text line, two bidirectional LSTM layers, one class a column."""

    def conv(x: T, index: int, factor: int, k: int = 3, bn: bool = False) -> T:
        x = net.conv(x, f"conv{index}", width * factor, k, 1, 1 if k == 3 else 0)
        return net.relu(net.batch_norm(x, f"bn{index}") if bn else x)

    x = net.pool("max_pool", conv(net.input("image", (batch, 1, height, length)), 0, 1), 2, 2)
    x = net.pool("max_pool", conv(x, 1, 2), 2, 2)
    x = conv(conv(x, 2, 4, bn=True), 3, 4)
    x = net.pool("max_pool", x, 2, (2, 1), (0, 1))
    x = conv(conv(x, 4, 8, bn=True), 5, 8)
    x = net.pool("max_pool", x, 2, (2, 1), (0, 1))
    x = conv(x, 6, 8, k=2, bn=True)
    x = net.transpose(net.reshape(x, (batch, x.shape[1], x.shape[3])), (2, 0, 1))
    x = net.linear(net.recurrent(x, "lstm0", hidden, "lstm", True), "embed0", hidden)
    x = net.linear(net.recurrent(x, "lstm1", hidden, "lstm", True), "embed1", classes)
    net.output("logits", x)
