"""The permutations of published networks are the groups of channels that Torch-Pruning removes together.

Torch-Pruning (Fang et al., "DepGraph: Towards Any Structural Pruning", 2023) follows autograd's graph in torch, symlint
an ONNX file: what both find, two programs with nothing in common have found. Needs `pip install symlint[compare]`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from symlint.model.load import load
from symlint.symmetry.inference import examine

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter warns

Place = tuple[str, int]
"""A parameter and one of its axes."""
Groups = list[frozenset[Place]]


@dataclass(frozen=True)
class Published:
    """An architecture with the arguments that make it small, and where the two programs differ."""

    library: str
    name: str
    arguments: dict[str, object]
    image: int = 64
    finer: int = 0
    """How many factors of an axis symlint permutes besides, where pruning keeps the number of them."""
    other: str = ""
    """A layer that Torch-Pruning adds to a group, although it has other units."""


def vision(name: str, *, finer: int = 0, **arguments: object) -> Published:
    return Published("torchvision.models", name, {"weights": None, **arguments}, finer=finer)


def timm(name: str, image: int = 64, finer: int = 0, other: str = "", **arguments: object) -> Published:
    return Published("timm", name, {"img_size": image, **arguments}, image, finer, other)


GROUPS = 22
"""Of the grouped convolutions of RegNet, one in each block: whole groups change places. Pruning keeps their number."""
KEYS = 3
"""Of the attentions, one in each block: the dimensions of query and key. Pruning keeps their number."""
TOKENS = "mlp_tokens", "linear_tokens"
"""Layers over the tokens, between two transpositions. Torch-Pruning does not follow these and takes the tokens for the
channels of the stream, though there are 4 or 16 of them and hundreds of those. No token can move: each has a place."""

NETWORKS = {
    n.name: n
    for n in (
        vision("resnet18"),
        vision("densenet121"),
        vision("googlenet", aux_logits=False, init_weights=False),
        vision("squeezenet1_1"),
        vision("mobilenet_v2"),
        vision("mobilenet_v3_small"),
        vision("mnasnet0_5"),
        vision("efficientnet_b0"),
        vision("regnet_x_400mf", finer=GROUPS),
        vision("convnext_tiny"),
        Published("timm", "ghostnet_100", {}),
        Published("timm", "repvgg_a0", {}),
        timm("vit_tiny_patch16_224", 32, KEYS, depth=3),
        timm("mixer_s32_224", other=TOKENS[0]),
        timm("resmlp_12_224", other=TOKENS[1]),
    )
}


def imported(library: str) -> Any:
    """A library of networks.

    The wheels of torchvision on PyPI need the CUDA variant of torch. Beside the other its compiled operators are
    missing, of which none of these networks has any; it can be imported once they are declared.
    """
    pytest.importorskip("torch_pruning")
    try:
        import_module("torchvision")
    except ImportError:
        pytest.skip("torchvision is not installed")
    except RuntimeError:
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", "(Tensor boxes, Tensor scores, float iou) -> Tensor")
    return pytest.importorskip(library)


def build(network: Published) -> Any:
    """The network in evaluation mode with random parameters, no two of them equal."""
    library = imported(network.library)
    create = library.create_model if network.library == "timm" else library.get_model
    model = create(network.name, **network.arguments).eval()
    generator = torch.Generator().manual_seed(0)
    for name, values in model.state_dict().items():
        if values.dtype.is_floating_point:
            drawn = torch.randn(values.shape, generator=generator)
            values.copy_(drawn.exp() if name.endswith("running_var") else drawn)
    return model


def inferred(model: Any, image: Any, file: Path) -> tuple[Groups, Groups]:
    """The spaces with permutations: all of them, and those that are a factor beside others wherever they are."""
    stream = io.BytesIO()
    # So the exporter folds no constants, and every parameter keeps its name.
    mode = torch.onnx.TrainingMode.PRESERVE
    torch.onnx.export(model, (image,), stream, dynamo=False, training=mode, do_constant_folding=False)
    file.write_bytes(stream.getvalue())
    symmetry, _ = examine(load(file))
    assert not symmetry.opaque
    permuted = {g.space for g in symmetry.generators if g.kind == "permutation"}
    spaces = [s for s in symmetry.spaces if s.id in permuted]
    inner = [s for s in spaces if all(p.layout != s.id for p in s.places)]
    every, factors = ([frozenset((p.tensor, p.axis) for p in s.places) for s in some] for some in (spaces, inner))
    return every, factors


def depended(model: Any, image: Any) -> Groups:
    """The groups of Torch-Pruning, without the classes: who prunes those wants another output."""
    pruning = import_module("torch_pruning")
    graph = pruning.DependencyGraph().build_dependency(model, example_inputs=image)
    names = {id(m): n for n, m in model.named_modules()} | {id(p): n for n, p in model.named_parameters()}
    loose = {id(u.parameters): u.pruning_dim for u in graph.unwrapped_parameters}
    layers = (torch.nn.Linear, torch.nn.Conv2d)
    classes = [m for m in model.modules() if isinstance(m, layers) and m.weight.shape[0] == 1000]
    assert len(classes) == 1

    def places(module: Any, *, written: bool) -> Iterator[Place]:
        if id(module) in loose:
            yield names[id(module)], loose[id(module)]
        elif isinstance(module, layers):
            depthwise = getattr(module, "groups", 1) == module.weight.shape[0]
            yield f"{names[id(module)]}.weight", 0 if written or depthwise else 1
            if module.bias is not None and (written or depthwise):
                yield f"{names[id(module)]}.bias", 0
        elif id(module) in names:  # a norm
            for name, values in module.state_dict().items():
                if values.ndim:
                    yield f"{names[id(module)]}.{name}", values.ndim - 1

    return [
        frozenset(
            place
            for dependency, _ in group
            for place in places(dependency.target.module, written=graph.is_out_channel_pruning_fn(dependency.handler))
        )
        for group in graph.get_all_groups(ignored_layers=classes)
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_permutations_are_the_groups_of_torch_pruning(name: str, tmp_path: Path) -> None:
    """Every group is a space and every space a group, but for factors of which pruning keeps the number."""
    network = NETWORKS[name]
    model = build(network)
    image = torch.randn(1, 3, network.image, network.image)
    spaces, factors = inferred(model, image, tmp_path / "net.onnx")
    groups = depended(model, image)
    if network.other:
        (stream,) = {g for g in groups if {network.other in parameter for parameter, _ in g} == {True, False}}
        groups = [*(g for g in groups if g != stream), frozenset(p for p in stream if network.other not in p[0])]
    assert set(groups) <= set(spaces)
    assert set(spaces) - set(groups) <= set(factors)
    assert len(set(spaces) - set(groups)) == network.finer
