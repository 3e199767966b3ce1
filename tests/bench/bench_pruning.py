"""Compares `symlint fix` with other optimisers, and with Torch-Pruning, on networks whose pruned parts are still there.

    python tests/bench/bench_pruning.py [NETWORK ..] [--exporter torchscript|dynamo] [--keep FOLDER] [--repeats N]

In each network (random weights) 30% of all channels, heads and MLP units are zero, as structured pruning leaves them:
every parameter that writes them is zero, those that read them are not. Torch-Pruning (Fang et al., "DepGraph", 2023),
whose groups say what writes them, then removes the same units: the shapes of its weights are the expected result.
Reports bytes, parameters, latency (batch 1, one thread), the largest difference of the outputs relative to the largest
output, whether `symlint check` names the zeroed units and no others, and whether `symlint fix` arrives at those shapes.
Needs `pip install -e .[compare,bench]`. No figure is asserted.
"""

# ruff: noqa: T201  (a script talks)
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch

SHARE = 0.3
OPSETS = {"torchscript": 17, "dynamo": 18}
OPTIMISE = """
import sys, onnxruntime as o
options = o.SessionOptions()
options.log_severity_level, options.optimized_model_filepath = 4, sys.argv[2]
options.graph_optimization_level = o.GraphOptimizationLevel.ORT_ENABLE_EXTENDED  # beyond it, files fit one processor
o.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""
PYTHON = sys.executable
TOOLS: dict[str, Callable[[str, str], list[str]]] = {
    "symlint fix": lambda a, b: [PYTHON, "-m", "symlint", "fix", a, "-o", b],
    # Onnxruntime lays channels out in blocks of 8 or 16 and computes other widths in a slower way.
    "symlint fix --align 8": lambda a, b: [PYTHON, "-m", "symlint", "fix", a, "-o", b, "--align", "8"],
    "onnxslim": lambda a, b: [PYTHON, "-m", "onnxslim", a, b],
    "onnxsim": lambda a, b: [PYTHON, "-m", "onnxsim", a, b],
    "onnxruntime": lambda a, b: [PYTHON, "-c", OPTIMISE, a, b],
}
MEASURE = """
import json, sys, time, numpy as np, onnxruntime as o
feed, files = {"x": np.load(sys.argv[1])}, sys.argv[3:]
options = o.SessionOptions()
options.log_severity_level, options.intra_op_num_threads = 4, 1
sessions = [o.InferenceSession(f, options, providers=["CPUExecutionProvider"]) for f in files]
first, times = [s.run(None, feed)[0] for s in sessions], [[] for _ in files]
for _ in range(int(sys.argv[2])):
    for session, seconds in zip(sessions, times):
        start = time.perf_counter()
        session.run(None, feed)
        seconds.append(time.perf_counter() - start)
apart = [float(np.abs(y - first[0]).max() / np.abs(first[0]).max()) for y in first]
print(json.dumps([[np.median(t) * 1e3, d] for t, d in zip(times, apart)]))
"""
Shapes = Counter[tuple[int, ...]]


@dataclass(frozen=True)
class Subject:
    """A network and what may be pruned in it."""

    model: Any
    example: Any
    kept: tuple[Any, ...]
    """Layers whose outputs stay: the classes, and streams that a LayerNorm sees."""
    attentions: dict[Any, Any]
    """By the layer that computes query, key and value."""
    pruners: dict[Any, Any]


@dataclass(frozen=True)
class Cut:
    """Units to remove, with Torch-Pruning's group of layers."""

    root: str
    size: int
    units: list[int]
    group: Any
    attention: Any


class Conv1D:
    """How Torch-Pruning cuts the transposed linear layer of GPT-2."""

    get_out_channels, get_in_channels = attrgetter("nf"), attrgetter("nx")

    def prune_out_channels(self, layer: Any, units: list[int]) -> None:
        keep = np.delete(np.arange(layer.nf), units)
        layer.weight, layer.bias = (torch.nn.Parameter(p.detach()[..., keep]) for p in (layer.weight, layer.bias))
        layer.nf = len(keep)

    def prune_in_channels(self, layer: Any, units: list[int]) -> None:
        # Torch-Pruning does not see the split into query, key and value: thrice the same units arrive here.
        keep = np.delete(np.arange(layer.nx), np.asarray(units) % layer.nx)
        layer.weight, layer.nx = torch.nn.Parameter(layer.weight.detach()[keep]), len(keep)


class Logits(torch.nn.Module):
    """A language model with one tensor for its output."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Any) -> Any:
        return self.model(x, attention_mask=torch.ones_like(x)).logits  # without a mask it is not exportable


def imported(library: str) -> Any:
    """A library of networks; where torchvision was built for another variant of torch its operators are declared."""
    try:
        import_module("torchvision")
    except RuntimeError:
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", "(Tensor boxes, Tensor scores, float iou) -> Tensor")
    return import_module(library)


def convolutional(name: str) -> Subject:
    model = imported("torchvision.models").get_model(name, weights=None)
    classes = next(m for m in model.modules() if isinstance(m, torch.nn.Linear))
    return Subject(model, torch.randn(1, 3, 224, 224), (classes,), {}, {})


def vit() -> Subject:
    model = imported("timm").create_model("vit_small_patch16_224")
    kept = [model.head, model.patch_embed.proj, *(m for b in model.blocks for m in (b.attn.proj, b.mlp.fc2))]
    return Subject(model, torch.randn(1, 3, 224, 224), tuple(kept), {b.attn.qkv: b.attn for b in model.blocks}, {})


def gpt2() -> Subject:
    library = imported("transformers")
    sizes = {"n_layer": 6, "n_embd": 384, "n_head": 12, "n_positions": 256, "vocab_size": 4096}
    config = library.GPT2Config(**sizes, use_cache=False, bos_token_id=0, eos_token_id=0)
    model = Logits(library.GPT2LMHeadModel(config))
    blocks = model.model.transformer.h
    kept = [model.model.lm_head, *(m for b in blocks for m in (b.attn.c_proj, b.mlp.c_proj))]
    attentions, pruners = {b.attn.c_attn: b.attn for b in blocks}, {type(blocks[0].mlp.c_fc): Conv1D()}
    return Subject(model, torch.randint(0, 4096, (1, 64)), tuple(kept), attentions, pruners)


NETWORKS: dict[str, Callable[[], Subject]] = {
    **{name: partial(convolutional, name) for name in ("resnet50", "mobilenet_v2")},
    "vit_small": vit,
    "gpt2": gpt2,
}


def build(name: str) -> Subject:
    """The network in evaluation mode; its normalisations and biases are random too."""
    torch.manual_seed(0)
    subject = NETWORKS[name]()
    for values in [*subject.model.parameters(), *subject.model.buffers()]:
        if values.ndim == 1 and values.is_floating_point():  # gains and variances near 1, biases and means near 0
            drawn = torch.rand_like(values) - 0.5
            values.data = drawn + 1 if values.min() > 0.5 else drawn * 0.2
    subject.model.eval()
    return subject


def choose(subject: Subject) -> list[Cut]:
    """A random share of every group, of the heads where it is an attention."""
    graph = import_module("torch_pruning").DependencyGraph()
    graph.build_dependency(subject.model, example_inputs=subject.example, customized_pruners=subject.pruners)
    layers = [torch.nn.Conv2d, torch.nn.Linear, *subject.pruners]
    names, rng, cuts = {m: n for n, m in subject.model.named_modules()}, np.random.default_rng(0), []
    for whole in graph.get_all_groups(ignored_layers=list(subject.kept), root_module_types=layers):
        (first, every), *_ = whole
        attention = subject.attentions.get(first.target.module)
        size = attention.num_heads if attention else len(every)
        units = sorted(rng.choice(size, round(SHARE * size), replace=False).tolist())
        rows = np.arange(len(every)).reshape(3 if attention else 1, size, -1)[:, units].reshape(-1).tolist()
        group = graph.get_pruning_group(first.target.module, first.handler, rows)
        cuts.append(Cut(names[first.target.module], size, units, group, attention))
    return cuts


def zero(cut: Cut) -> None:
    """Set to zero what writes the units, and nothing that reads them."""
    for dependency, units in cut.group:
        layer = dependency.target.module
        for values in layer.parameters(recurse=False) if dependency.handler.__name__ != "prune_in_channels" else ():
            values.data.index_fill_(values.ndim - 1 if hasattr(layer, "nf") else 0, torch.tensor(units), 0)


def remove(cut: Cut) -> None:
    """Let Torch-Pruning remove the units."""
    cut.group.prune(record_history=False)
    if cut.attention:
        cut.attention.num_heads -= len(cut.units)
        width = "attn_dim" if hasattr(cut.attention, "attn_dim") else "split_size"
        setattr(cut.attention, width, cut.attention.num_heads * cut.attention.head_dim)


def export(subject: Subject, file: Path, exporter: str) -> None:
    """Write the network with a batch of any size; an example of size 1 would make it a constant."""
    example = torch.cat([subject.example] * 2)
    dynamic = {
        "torchscript": {"dynamic_axes": {"x": {0: "batch"}, "y": {0: "batch"}}, "dynamo": False},
        "dynamo": {"dynamic_shapes": [{0: torch.export.Dim("batch")}], "external_data": False, "verbose": False},
    }
    names = {"input_names": ["x"], "output_names": ["y"], "opset_version": OPSETS[exporter]}
    torch.onnx.export(subject.model, (example,), file, **names, **dynamic[exporter])


def prepare(name: str, exporters: list[str], folder: Path) -> None:
    """Leave NAME.EXPORTER.zeroed.onnx, NAME.EXPORTER.torch-pruning.onnx, NAME.npy and NAME.json with the groups."""
    files = {(e, s): folder / f"{name}.{e}.{s}.onnx" for e in exporters for s in ("zeroed", "torch-pruning")}
    if all(f.exists() for f in files.values()):
        return
    subject = build(name)
    np.save(folder / f"{name}.npy", subject.example.numpy())
    cuts = choose(subject)
    for change, state in ((zero, "zeroed"), (remove, "torch-pruning")):
        for cut in cuts:
            change(cut)
        for exporter in exporters:
            export(subject, files[exporter, state], exporter)
    (folder / f"{name}.json").write_text(json.dumps([[c.root, c.size, c.units] for c in cuts]))


def shapes(file: Path) -> Shapes:
    """How many floating-point constants there are of every shape, scalars left out."""
    graph = onnx.load(file).graph
    constants = [a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"]
    floats = [t for t in [*graph.initializer, *constants] if t.data_type == onnx.TensorProto.FLOAT]
    return Counter(tuple(t.dims) for t in floats if np.prod(t.dims) > 1)


def told(file: Path, groups: list[tuple[str, int, list[int]]]) -> str:
    """Whether `symlint check` names the zeroed units and no others; between linear maps their number as a rank."""
    done = subprocess.run([PYTHON, "-m", "symlint", "check", file, "-f", "json"], capture_output=True, check=False)
    found = [f for f in json.loads(done.stdout)["models"][0]["findings"] if f["level"] != "note"]
    dead = Counter((f["facts"]["units"], tuple(f["units"])) for f in found if f["rule"] == "SYM101")
    ranks = Counter((f["facts"]["width"], sum(f["facts"]["ranks"])) for f in found if f["rule"] == "SYM301")
    missing: list[str] = []
    named, ranked = 0, 0
    for root, size, units in groups:
        if dead[size, tuple(units)]:
            dead[size, tuple(units)] -= 1
            named += 1
        elif ranks[size, size - len(units)]:
            ranks[size, size - len(units)] -= 1
            ranked += 1
        else:
            missing.append(root)
    besides = [*(+dead).elements(), *(+ranks).elements()]
    other = [f["message"] for f in found if f["rule"].startswith("SYM0")]
    return f"of {len(groups)} groups {named} named, {ranked} as a rank; missing {missing}, besides {besides} {other}"


def compare(name: str, exporter: str, folder: Path, repeats: int) -> None:
    """Print the rows of one file, and below them what `check` said and where `fix` has other shapes."""
    start = f"{name}.{exporter}"
    zeroed, pruned = folder / f"{start}.zeroed.onnx", folder / f"{start}.torch-pruning.onnx"
    files, took, failures = {"zeroed": zeroed}, {}, []
    for tool, command in TOOLS.items():
        out = folder / f"{start}.{tool.replace('--', '').replace(' ', '-')}.onnx"
        out.unlink(missing_ok=True)
        clock = time.perf_counter()
        done = subprocess.run(command(str(zeroed), str(out)), capture_output=True, text=True, check=False)
        took[tool] = f"{time.perf_counter() - clock:.1f}"
        if out.exists():
            files[tool] = out
        else:
            failures.append(f"{tool}: {(done.stderr.strip() or done.stdout.strip())[-200:]}")
    files["Torch-Pruning"] = pruned
    measure = [PYTHON, "-c", MEASURE, str(folder / f"{name}.npy"), str(repeats), *map(str, files.values())]
    figures = json.loads(subprocess.run(measure, capture_output=True, check=True).stdout)
    print(f"\n**{name}, {exporter}**\n")
    print("| file | MB | parameters | latency, ms | difference | seconds to make |", "| --- |" + " --: |" * 5, sep="\n")
    for (tool, file), (latency, apart) in zip(files.items(), figures, strict=True):
        parameters = sum(int(np.prod(shape)) * n for shape, n in shapes(file).items())
        size = f"{file.stat().st_size / 1e6:.1f}"
        print(f"| {tool} | {size} | {parameters:,} | {latency:.1f} | {apart:.0e} | {took.get(tool, '')} |")
    print(f"\n- check: {told(zeroed, json.loads((folder / f'{name}.json').read_text()))}")
    if "symlint fix" in files:
        ours, theirs = shapes(files["symlint fix"]), shapes(pruned)
        print(f"- fix beside Torch-Pruning: missing {dict(theirs - ours)}, besides {dict(ours - theirs)}")
    print(*(f"- {failure}\n" for failure in failures), sep="", end="", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="How far optimisers and symlint shrink zeroed networks.")
    parser.add_argument("networks", nargs="*", default=[], metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--exporter", choices=OPSETS, action="append", help="both, unless named")
    parser.add_argument("--keep", type=Path, help="a folder for the files, which are used again")
    parser.add_argument("--repeats", type=int, default=20)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")  # the exporters warn
    torch.set_num_threads(1)
    exporters = chosen.exporter or list(OPSETS)
    with TemporaryDirectory(prefix="symlint-") as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in chosen.networks or NETWORKS:
            prepare(name, exporters, folder)
            for exporter in exporters:
                compare(name, exporter, folder, chosen.repeats)


if __name__ == "__main__":
    main()
