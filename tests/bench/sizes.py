"""Networks of the sizes that people have, as files: made with random weights, each in a process of its own.

    python tests/bench/sizes.py FOLDER [NAME ...]

Those that PyTorch, timm and transformers export need the extras compare and bench; the others are written by hand. A
file that is there is kept. Biases, gains and running statistics are drawn too: at their initial values they would be no
network that anybody has trained, and an audit says so.
"""

# ruff: noqa: T201  (a script talks)
from __future__ import annotations

import argparse
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from bench_inference import encoder as narrow
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


class Graph:
    """Nodes and initializers on their way into a file."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.parameters = 0

    def weight(self, name: str, *shape: int, fan_in: int | None = None) -> str:
        """A new random tensor; without `fan_in` it is a bias."""
        scale = 0.05 if fan_in is None else (2 / fan_in) ** 0.5
        self.parameters += int(np.prod(shape))
        self.weights.append(self.stored(name, shape, scale))
        return name

    def stored(self, name: str, shape: Sequence[int], scale: float) -> onnx.TensorProto:
        """Where the numbers go: into the message."""
        return numpy_helper.from_array(self.rng.standard_normal(shape, dtype=np.float32) * np.float32(scale), name)

    def table(self, name: str, values: Sequence[int | float], dtype: type = np.int64) -> str:
        """A constant that is no weight."""
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, op: str, *inputs: str, out: str, **attributes: object) -> str:
        """One node with one output, named after it."""
        self.nodes.append(helper.make_node(op, inputs, [out], out, **attributes))
        return out

    def linear(self, x: str, name: str, into: int, out: int) -> str:
        """A product and a bias, as the older of PyTorch's exporters writes them for three axes."""
        y = self.node("MatMul", x, self.weight(f"{name}.weight", into, out, fan_in=into), out=f"{name}.product")
        return self.node("Add", y, self.weight(f"{name}.bias", out), out=name)

    def norm(self, x: str, name: str, width: int) -> str:
        """Layer normalisation over the last axis."""
        gain, bias = self.weight(f"{name}.weight", width), self.weight(f"{name}.bias", width)
        return self.node("LayerNormalization", x, gain, bias, out=name, axis=-1)

    def attention(self, x: str, at: str, width: int, heads: int, mask: str | None = None) -> str:
        """Heads with a matrix of their own for queries, keys and values, merged and read by a last one."""
        split = "split" if any(w.name == "split" for w in self.weights) else self.table("split", [0, 0, heads, -1])
        merge = "merge" if any(w.name == "merge" for w in self.weights) else self.table("merge", [0, 0, width])
        parts = []
        for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            y = self.node("Reshape", self.linear(x, f"{at}.{part}", width, width), split, out=f"{at}.{part}.heads")
            parts.append(self.node("Transpose", y, out=f"{at}.{part}.first", perm=order))
        q, k, v = parts
        root = f"{at}.root"
        self.table(root, [(width // heads) ** 0.5], np.float32)
        scores = self.node("Div", self.node("MatMul", q, k, out=f"{at}.scores"), root, out=f"{at}.scaled")
        if mask:
            scores = self.node("Add", scores, mask, out=f"{at}.masked")
        probabilities = self.node("Softmax", scores, out=f"{at}.softmax", axis=-1)
        mixed = self.node("MatMul", probabilities, v, out=f"{at}.mixed")
        mixed = self.node("Transpose", mixed, out=f"{at}.back", perm=[0, 2, 1, 3])
        return self.linear(self.node("Reshape", mixed, merge, out=f"{at}.merged"), f"{at}.output", width, width)

    def gelu(self, x: str, at: str) -> str:
        """By the error function, in five nodes."""
        e = self.node("Erf", self.node("Div", x, self.number(2**0.5), out=f"{at}.div"), out=f"{at}.erf")
        e = self.node("Mul", x, self.node("Add", e, self.number(1.0), out=f"{at}.plus"), out=f"{at}.gelu")
        return self.node("Mul", e, self.number(0.5), out=f"{at}.half")

    def number(self, value: float) -> str:
        """A constant of one element."""
        name = f"number_{value:.3f}"
        return name if any(w.name == name for w in self.weights) else self.table(name, [value], np.float32)

    def model(self, name: str, x: Sequence[int | str], y: Sequence[int | str], kind: int) -> onnx.ModelProto:
        """The graph from `x` to `y` as a message."""
        infos = [helper.make_tensor_value_info("x", kind, x)]
        outs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)]
        graph = helper.make_graph(self.nodes, name, infos, outs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)

    def save(self, path: Path, x: Sequence[int | str], y: Sequence[int | str], kind: int = TensorProto.FLOAT) -> None:
        """Write the graph from `x` to `y`."""
        onnx.save(self.model(path.stem, x, y, kind), path)


class Beside(Graph):
    """A graph whose weights go into a file beside it, block by block, as soon as they are drawn."""

    BLOCK = 1 << 20

    def __init__(self, seed: int, path: Path) -> None:
        super().__init__(seed)
        self.data = path.with_name(f"{path.name}.data")
        self.file = self.data.open("wb")

    def stored(self, name: str, shape: Sequence[int], scale: float) -> onnx.TensorProto:
        """Where the numbers go: behind what is already in the file, at a multiple of a page."""
        left = count = int(np.prod(shape))
        self.file.seek(-(-self.file.tell() // 4096) * 4096)
        place = self.file.tell()
        while left:
            size = min(left, self.BLOCK)
            block = self.rng.random(size, dtype=np.float32)  # uniform: 1.3e9 normal variates take half a minute
            block -= np.float32(0.5)
            block *= np.float32(scale * 12**0.5)
            self.file.write(block.data)
            left -= size
        tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", self.data.name), ("offset", str(place)), ("length", str(4 * count))):
            tensor.external_data.add(key=key, value=value)
        return tensor

    def save(self, path: Path, x: Sequence[int | str], y: Sequence[int | str], kind: int = TensorProto.FLOAT) -> None:
        self.file.close()
        super().save(path, x, y, kind)


# -- written by hand --------------------------------------------------------------------------------------------------
def convolutional(
    path: Path, widths: Sequence[int] = (64, 128, 256, 512), blocks: Sequence[int] = (3, 4, 6, 3)
) -> None:
    """Bottlenecks in the shape of ResNet-50, with normalisations folded."""
    g = Graph(0)

    def conv(x: str, name: str, into: int, out: int, kernel: int, stride: int = 1) -> str:
        w = g.weight(f"{name}.weight", out, into, kernel, kernel, fan_in=into * kernel**2)
        pads, strides = [kernel // 2] * 4, [stride] * 2
        b = g.weight(f"{name}.bias", out)
        return g.node("Conv", x, w, b, out=name, kernel_shape=[kernel] * 2, pads=pads, strides=strides)

    def relu(x: str) -> str:
        return g.node("Relu", x, out=f"{x}.relu")

    x = relu(conv("x", "stem", 3, widths[0], 7, 2))
    x = g.node("MaxPool", x, out="pool", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
    into = widths[0]
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        for block in range(count):
            stride, name = (2 if stage and not block else 1), f"stage{stage}.{block}"
            skip = x if block else conv(x, f"{name}.shortcut", into, 4 * width, 1, stride)
            y = relu(conv(x, f"{name}.reduce", into, width, 1))
            y = relu(conv(y, f"{name}.spatial", width, width, 3, stride))
            y = conv(y, f"{name}.expand", width, 4 * width, 1)
            x = relu(g.node("Add", y, skip, out=f"{name}.add"))
            into = 4 * width
    x = g.node("Flatten", g.node("GlobalAveragePool", x, out="mean"), out="flat")
    g.node("Gemm", x, g.weight("fc.weight", 1000, into, fan_in=into), g.weight("fc.bias", 1000), out="y", transB=1)
    g.save(path, ["batch", 3, 224, 224], ["batch", 1000])


def transformer(path: Path, layers: int = 12, width: int = 768, heads: int = 12, words: int = 0) -> None:
    """Encoder layers with normalisation after each half, and a head of its own over words where there are any."""
    g = Graph(1)
    x = "x"
    if words:
        x = g.node("Gather", g.weight("words.weight", words, width), "x", out="words")
        x = g.norm(g.node("Add", x, g.weight("positions.weight", 1, 128, width), out="embedded"), "embedding", width)
    for layer in range(layers):
        at = f"layer{layer}"
        x = g.norm(g.node("Add", g.attention(x, at, width, heads), x, out=f"{at}.add"), f"{at}.norm", width)
        h = g.gelu(g.linear(x, f"{at}.up", width, 4 * width), at)
        x = g.norm(g.node("Add", g.linear(h, f"{at}.down", 4 * width, width), x, out=f"{at}.end"), f"{at}.last", width)
    if words:
        g.linear(x, "head", width, words)
    g.node("Identity", "head" if words else x, out="y")
    if words:
        g.save(path, [1, 128], [1, 128, words], TensorProto.INT64)
    else:
        g.save(path, [1, 128, width], [1, 128, width])


def decoder(path: Path, layers: int = 24, width: int = 2048, heads: int = 16, words: int = 50_257) -> None:
    """1.3e9 parameters: a decoder with normalisation before each half and a tied head; its weights lie beside it."""
    g, time = Beside(2, path), 64
    table = g.weight("words.weight", words, width)
    x = g.node("Gather", table, "x", out="words")
    x = g.node("Add", x, g.weight("positions.weight", 1, time, width), out="embedded")
    mask = np.triu(np.full((time, time), -3e38, np.float32), 1)[None, None]
    g.weights.append(numpy_helper.from_array(mask, "mask"))
    for layer in range(layers):
        at = f"layer{layer}"
        y = g.attention(g.norm(x, f"{at}.first", width), at, width, heads, "mask")
        x = g.node("Add", x, y, out=f"{at}.add")
        h = g.gelu(g.linear(g.norm(x, f"{at}.second", width), f"{at}.up", width, 4 * width), at)
        x = g.node("Add", x, g.linear(h, f"{at}.down", 4 * width, width), out=f"{at}.end")
    x = g.norm(x, "last", width)
    g.node("MatMul", x, g.node("Transpose", table, out="tied", perm=[1, 0]), out="y")
    g.save(path, [1, time], [1, time, words], TensorProto.INT64)


def recurrent(path: Path, width: int = 1300) -> None:
    """A long short-term memory and a projection; in float32 54 MB, and 13.6 MB in eight bits."""
    g = Graph(3)
    w, r = (g.weight(n, 1, 4 * width, width, fan_in=width) for n in ("lstm.W", "lstm.R"))
    g.nodes.append(helper.make_node("LSTM", ["x", w, r, g.weight("lstm.B", 1, 8 * width)], ["h"], hidden_size=width))
    g.linear(g.node("Squeeze", "h", g.table("axes", [1]), out="flat"), "last", width, 10)
    g.node("Identity", "last", out="y")
    g.save(path, ["time", 1, width], ["time", 1, 10])


def deep(path: Path, layers: int = 715) -> None:
    """20,000 nodes: narrow layers, so that only the graph counts."""
    narrow(layers, path)


# -- exported ---------------------------------------------------------------------------------------------------------
def _export(net: Any, path: Path, inputs: dict[str, Any], axes: dict[str, dict[int, str]]) -> None:
    """Through the older exporter, which most files have come from; through the newer one where that fails."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif tensor.ndim == 1:
                tensor.add_(torch.randn_like(tensor) * 0.05)
    names, outputs = list(inputs), [name for name in axes if name not in inputs]
    common = {"input_names": names, "output_names": outputs, "opset_version": OPSET}
    try:
        torch.onnx.export(
            net.eval(),
            tuple(inputs.values()),
            str(path),
            dynamo=False,
            dynamic_axes=axes,
            do_constant_folding=True,
            **common,
        )
    except Exception as problem:  # of any kind
        print(f"  the older exporter fails: {problem!r}"[:200])
        shapes = tuple(dict.fromkeys(axes[name], torch.export.Dim.DYNAMIC) for name in names)
        common["opset_version"] = 18
        torch.onnx.export(
            net, tuple(inputs.values()), str(path), dynamo=True, dynamic_shapes=shapes, external_data=False, **common
        )


def resnet50(path: Path) -> None:
    import timm
    import torch

    net = timm.create_model("resnet50", zero_init_last=False)
    _export(net, path, {"image": torch.rand(1, 3, 224, 224)}, {"image": {0: "batch"}, "scores": {0: "batch"}})


def vit_b16(path: Path) -> None:
    import timm
    import torch

    net = timm.create_model("vit_base_patch16_224")
    net.cls_token.data.normal_(0, 0.02)
    net.head.weight.data.normal_(0, 0.02)
    _export(net, path, {"image": torch.rand(1, 3, 224, 224)}, {"image": {0: "batch"}, "scores": {0: "batch"}})


def maxxvit(path: Path) -> None:
    import timm
    import torch

    net = timm.create_model("maxxvitv2_nano_rw_256")
    _export(net, path, {"image": torch.rand(1, 3, 256, 256)}, {"image": {0: "batch"}, "scores": {0: "batch"}})


def bert_base(path: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel

    net = BertModel(BertConfig(attn_implementation="eager"))
    for table in (net.embeddings.word_embeddings, net.embeddings.position_embeddings):
        table.weight.data.normal_(0, 0.02)

    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, ids: Any, mask: Any, kinds: Any) -> Any:
            y = self.net(input_ids=ids, attention_mask=mask, token_type_ids=kinds, return_dict=False)
            return y[0], y[1]

    ids = torch.randint(0, 30_000, (2, 16))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    text = {0: "batch", 1: "sequence"}
    _export(
        Outputs(), path, inputs, {**dict.fromkeys([*inputs, "last_hidden_state"], text), "pooler_output": {0: "batch"}}
    )


def gpt2(path: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    net = GPT2LMHeadModel(GPT2Config(attn_implementation="eager"))

    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, ids: Any) -> Any:
            return self.net(input_ids=ids, use_cache=False, return_dict=False)[0]

    text = {0: "batch", 1: "sequence"}
    _export(Outputs(), path, {"input_ids": torch.randint(0, 50_000, (2, 16))}, {"input_ids": text, "logits": text})


# -- made from another -------------------------------------------------------------------------------------------------
def planted(source: Path, path: Path) -> None:
    """A tenth of the hidden units of each perceptron dead, constant or duplicate, in equal parts."""
    model = onnx.load(source)
    stored = {w.name: w for w in model.graph.initializer}
    made_by = {out: node for node in model.graph.node for out in node.output}
    numbers = {n: numpy_helper.to_array(w).copy() for n, w in stored.items() if len(w.dims) in (1, 2) and w.raw_data}

    def bias_of(node: onnx.NodeProto) -> str:
        if node.op_type == "Gemm":
            return str(node.input[2])
        after = [n for n in model.graph.node if node.output[0] in n.input and n.op_type == "Add"]
        return str(next(i for i in after[0].input if i in stored))

    products = [n for n in made_by.values() if n.op_type in ("MatMul", "Gemm") and n.input[1] in numbers]
    up = [n for n in products if numbers[n.input[1]].shape[1] == 4 * numbers[n.input[1]].shape[0]]
    down = [n for n in products if numbers[n.input[1]].shape[0] == 4 * numbers[n.input[1]].shape[1]]
    assert len(up) == len(down) > 0
    rng, changed = np.random.default_rng(4), set[str]()
    for first, second in zip(up, down, strict=True):
        names = first.input[1], bias_of(first), second.input[1]
        writer, bias, reader = (numbers[name] for name in names)
        changed.update(names)
        units = rng.permutation(bias.size)
        part = bias.size // 30
        dead, constant, twins, models = (units[k * part : (k + 1) * part] for k in range(4))
        writer[:, dead[::2]], bias[dead[::2]] = 0, 0
        reader[dead[1::2]] = 0
        writer[:, constant] = 0
        writer[:, twins], bias[twins] = writer[:, models], bias[models]
    for name in changed:
        stored[name].raw_data = numbers[name].tobytes()
    onnx.save(model, path)


def half(source: Path, path: Path) -> None:
    """All in float16."""
    from onnxconverter_common.float16 import convert_float_to_float16

    model = onnx.load(source)
    del model.graph.value_info[:]  # some of them would still say float32
    with warnings.catch_warnings(action="ignore"):
        onnx.save(convert_float_to_float16(model), path)


def dynamic(source: Path, path: Path) -> None:
    """Weights in eight bits, what flows quantised as it comes."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, path, weight_type=QuantType.QInt8)


MAKERS: dict[str, Callable[[Path], None]] = {
    "resnet50": resnet50,
    "vit_b16": vit_b16,
    "bert_base": bert_base,
    "gpt2": gpt2,
    "enc_vocab": lambda path: transformer(path, layers=3, words=30_522),
    "decoder_1b3": decoder,
    "nodes20k": deep,
    "convolutional": convolutional,
    "transformer": transformer,
    "maxxvit": maxxvit,
    "lstm": recurrent,
}
FORMS: dict[str, Callable[[Path, Path], None]] = {"planted": planted, "fp16": half, "dyn": dynamic}
"""Another form of a network: `bert_base_fp16` is made from `bert_base`."""
GROWING = re.compile(r"transformer-(\d+)x(\d+)|encoder-(\d+)")
"""So many layers, so many units wide; or so many narrow layers of 28 nodes."""


def source(name: str) -> str:
    """The network from which another form is made; itself for one that is made from nothing."""
    return name if name in MAKERS or GROWING.fullmatch(name) else name.rpartition("_")[0]


def write(name: str, folder: Path, path: Path) -> None:
    """Make a network here and now."""
    grown = GROWING.fullmatch(name)
    if grown and grown[3]:
        deep(path, int(grown[3]))
    elif grown:
        transformer(path, int(grown[1]), int(grown[2]), max(1, int(grown[2]) // 64))
    elif name in MAKERS:
        MAKERS[name](path)
    else:
        FORMS[name.rpartition("_")[2]](folder / f"{source(name)}.onnx", path)


def make(name: str, folder: Path) -> Path:
    """The file of a network, and of what it is made from, if they are not there."""
    path = folder / f"{name}.onnx"
    if path.exists():
        return path
    if source(name) != name:
        make(source(name), folder)
    # In a process of its own: what a process has held counts as the peak of the children that it starts.
    print(f"making {path.name}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, __file__, str(folder), name, "--here"], check=True)
    return path


def main() -> None:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MAKERS)}, each also with _planted, _fp16 or _dyn")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.names or MAKERS:
        path = options.folder / f"{name}.onnx"
        if not options.here:
            make(name, options.folder)
        elif name == "decoder_1b3":
            write(name, options.folder, path)  # what lies beside it is named in it
        else:
            part = path.with_suffix(".part")  # what is there under its own name is whole
            write(name, options.folder, part)
            part.replace(path)


if __name__ == "__main__":
    main()
