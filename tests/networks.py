"""Small networks of the families that real graphs come from, as exporters write them.

Activations are written the way PyTorch's exporter does: SiLU as Sigmoid and Mul, GELU as Div, Erf,
Add, Mul, Mul; LayerNormalization and HardSwish are one operator from opsets 17 and 14 on.
"""

from collections.abc import Callable

import numpy as np
import onnx

from tests.models import Net

IMAGE = ("N", 3, 32, 32)


def silu(net: Net, x: str) -> str:
    """Add x * sigmoid(x)."""
    return net.add("Mul", [x, net.add("Sigmoid", [x])])


def scalar(net: Net, value: float) -> str:
    """Add a constant of one number."""
    return net.weight(f"number{len(net.weights)}", np.array(value, np.float32))


def gelu(net: Net, x: str) -> str:
    """Add x / 2 * (1 + erf(x / sqrt(2)))."""
    inner = net.add("Erf", [net.add("Div", [x, scalar(net, 2**0.5)])])
    return net.add(
        "Mul", [net.add("Mul", [x, net.add("Add", [inner, scalar(net, 1)])]), scalar(net, 0.5)]
    )


def layer_norm(net: Net, x: str, width: int, *, name: str = "") -> str:
    """Add LayerNormalization over the last axis."""
    name = name or f"layernorm{len(net.nodes)}"
    scale = net.weight(f"{name}.scale", net.rng.uniform(0.5, 1.5, width).astype(np.float32))
    return net.add(
        "LayerNormalization", [x, scale, net.random(f"{name}.shift", (width,))], name=name
    )


def shaped(net: Net, x: str, *shape: int) -> str:
    """Add a Reshape."""
    return net.add(
        "Reshape", [x, net.weight(f"shape{len(net.weights)}", np.array(shape, np.int64))]
    )


def turned(net: Net, x: str, *perm: int) -> str:
    """Add a Transpose."""
    return net.add("Transpose", [x], attributes={"perm": list(perm)})


def linear(net: Net, x: str, sizes: tuple[int, int], *, name: str = "") -> str:
    """Add a product with a matrix, and a bias, as exporters write it for three axes."""
    name = name or f"linear{len(net.nodes)}"
    made = net.matmul(x, sizes, name=name)
    return net.add("Add", [net.random(f"{name}.bias", sizes[1:]), made])


def gate(net: Net, x: str, channels: int, squeezed: int) -> str:
    """Add a squeeze-and-excitation gate."""
    y = net.add("GlobalAveragePool", [x])
    y = silu(net, net.conv(y, (channels, squeezed), kernel=1, bias=True))
    y = net.add("Sigmoid", [net.conv(y, (squeezed, channels), kernel=1, bias=True)])
    return net.add("Mul", [x, y])


def attention(net: Net, x: str, width: int, heads: int, tokens: int) -> str:
    """Add self-attention with one product for query, key and value."""
    size = width // heads
    qkv = shaped(net, linear(net, x, (width, 3 * width), name=""), 0, tokens, 3, heads, size)
    qkv = turned(net, qkv, 2, 0, 3, 1, 4)
    q, k, v = (
        net.add("Gather", [qkv, net.weight(f"index{len(net.weights)}", np.array(i, np.int64))])
        for i in range(3)
    )
    scores = net.add("MatMul", [q, turned(net, k, 0, 1, 3, 2)])
    scores = net.add("Softmax", [net.add("Mul", [scores, scalar(net, size**-0.5)])])
    mixed = turned(net, net.add("MatMul", [scores, v]), 0, 2, 1, 3)
    return linear(net, shaped(net, mixed, 0, tokens, width), (width, width))


def patches(net: Net, x: str, width: int, size: int, *, name: str) -> str:
    """Add a convolution of squares that do not overlap."""
    weight = net.random(f"{name}.weight", (width, 3, size, size), fan=3 * size**2)
    return net.add("Conv", [x, weight], name=name, attributes={"strides": [size, size]})


def vit(*, width: int = 64, heads: int = 2, blocks: int = 2) -> onnx.ModelProto:
    """A vision transformer: patches, attention, GELU."""
    net = Net()
    patches = net.weight(
        "patch.weight", net.rng.normal(size=(width, 3, 8, 8)).astype(np.float32) / 14
    )
    x = net.add(
        "Conv", [net.input(shape=IMAGE), patches], name="patch", attributes={"strides": [8, 8]}
    )
    x = turned(net, shaped(net, x, 0, width, 16), 0, 2, 1)
    x = net.add("Add", [x, net.random("position", (1, 16, width))])
    for _ in range(blocks):
        x = net.add("Add", [x, attention(net, layer_norm(net, x, width), width, heads, 16)])
        y = gelu(net, linear(net, layer_norm(net, x, width), (width, 4 * width)))
        x = net.add("Add", [x, linear(net, y, (4 * width, width))])
    x = net.add("ReduceMean", [layer_norm(net, x, width)], attributes={"axes": [1], "keepdims": 0})
    return net.finish(net.gemm(x, (width, 16), name="classifier"))


def efficientnet(*, width: int = 16, blocks: int = 3) -> onnx.ModelProto:
    """Inverted bottlenecks with SiLU and squeeze-and-excitation gates."""
    net = Net()
    x = silu(net, net.norm(net.conv(net.input(shape=IMAGE), (3, width), name="stem"), width))
    for i in range(blocks):
        inner = 4 * width
        y = silu(net, net.norm(net.conv(x, (width, inner), kernel=1), inner))
        y = silu(net, net.norm(net.conv(y, (inner, inner), groups=inner, name=f"depth{i}"), inner))
        y = gate(net, y, inner, 8)
        y = net.norm(net.conv(y, (inner, width), kernel=1), width)
        x = y if i == 0 else net.add("Add", [y, x])
    x = silu(net, net.norm(net.conv(x, (width, 64), kernel=1), 64))
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x])])
    return net.finish(net.gemm(x, (64, 16), name="classifier"))


def convnext(*, width: int = 32, blocks: int = 2) -> onnx.ModelProto:
    """Depthwise 7x7, LayerNorm over channels, products with GELU, a scale for each channel."""
    net = Net()
    x = net.add(
        "Conv",
        [net.input(shape=IMAGE), net.random("stem.weight", (width, 3, 4, 4), fan=48)],
        name="stem",
        attributes={"strides": [4, 4]},
    )
    for i in range(blocks):
        y = turned(
            net, net.conv(x, (width, width), kernel=7, groups=width, name=f"depth{i}"), 0, 2, 3, 1
        )
        y = gelu(net, linear(net, layer_norm(net, y, width), (width, 4 * width)))
        y = linear(net, y, (4 * width, width))
        y = net.add("Mul", [y, net.random(f"gamma{i}", (width,))])
        x = net.add("Add", [x, turned(net, y, 0, 3, 1, 2)])
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x])])
    return net.finish(net.gemm(layer_norm(net, x, width), (width, 16), name="classifier"))


def yolo(*, width: int = 16) -> onnx.ModelProto:
    """Split, bottlenecks with SiLU, Concat of all, SPPF, upsampling and a skip."""
    net = Net()
    n, half = 2 * width, width
    x = silu(net, net.conv(net.input(shape=IMAGE), (3, n), name="stem"))
    y = silu(net, net.conv(x, (n, n), kernel=1, name="cv1"))
    net.add("Split", [y], name="split", attributes={"axis": 1}, outputs=2)
    parts = ["split_out", "split_out1"]
    for i in range(2):
        z = silu(net, net.conv(parts[-1], (half, half), name=f"m{i}.cv1"))
        z = silu(net, net.conv(z, (half, half), name=f"m{i}.cv2"))
        parts.append(net.add("Add", [parts[-1], z]))
    y = net.add("Concat", parts, name="c2f", attributes={"axis": 1})
    y = silu(net, net.conv(y, (2 * n, n), kernel=1, name="cv2"))
    down = net.pool(y)
    pools = [silu(net, net.conv(down, (n, half), kernel=1, name="sppf.cv1"))]
    for _ in range(3):
        attributes = {"kernel_shape": [5, 5], "pads": [2] * 4}
        pools.append(net.add("MaxPool", [pools[-1]], attributes=attributes))
    z = net.add("Concat", pools, name="sppf", attributes={"axis": 1})
    z = silu(net, net.conv(z, (4 * half, n), kernel=1, name="sppf.cv2"))
    scales = net.weight("scales", np.array([1, 1, 2, 2], np.float32))
    z = net.add("Resize", [z, "", scales], name="up", attributes={"mode": "nearest"})
    z = net.add("Concat", [z, y], name="skip", attributes={"axis": 1})
    return net.finish(net.conv(z, (2 * n, n), kernel=1, name="head", bias=True))


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "vit": vit,
    "efficientnet": efficientnet,
    "convnext": convnext,
    "yolo": yolo,
}
