"""A network has the same symmetries however it came into its file: by which exporter, optimiser or rounding.

Compared is what no route can change: how often each group acts, and how many directions there are. Translations are
counted by their directions only, since one of a fused bias does the work of three. A network that differs says why; the
reason has to go when the difference goes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from corpora import SHARED
from networks import SMALL, Arrays

from symlint.model.load import load
from symlint.symmetry.inference import infer

ZOO = SHARED / "zoo"
ENTRIES = json.loads((ZOO / "INDEX.json").read_text()) if ZOO.is_dir() else []
FIRST = {e["architecture"]: e["name"] for e in sorted(ENTRIES, key=lambda e: e["name"], reverse=True)}
DERIVED = [(FIRST[e["architecture"]], e["name"]) for e in ENTRIES if e["name"] not in FIRST.values()]
"""A network of the zoo, and one that was made of it or exported beside it."""
pytestmark = pytest.mark.filterwarnings("ignore")  # exporters, optimisers and quantisers warn


@dataclass(frozen=True)
class Signature:
    """What of a file's symmetries survives other names and merged tensors."""

    permutations: Counter[str]
    others: Counter[tuple[str, str]]
    dimension: int


@cache
def signature(file: Path) -> Signature:
    symmetry = infer(load(file))
    # What an epsilon breaks is listed as not exact: folded into a weight, the epsilon is gone.
    kinds = [(g.kind, g.group) for g in symmetry.generators if g.kind != "translation" and g.exact]
    permutations = Counter(group for kind, group in kinds if kind == "permutation")
    return Signature(permutations, Counter(k for k in kinds if k[0] != "permutation"), symmetry.dimension)


def judge(before: Signature, after: Signature, reason: str | None, *, rounded: bool = False) -> None:
    """The same but for a reason; across a quantiser permutations stay, and nothing continuous is added."""
    if reason is not None:
        assert after != before, f"it is the same now: {reason}"
    elif rounded:
        assert after.permutations == before.permutations
        assert after.dimension <= before.dimension
    else:
        assert after == before


# -- exports that others made ------------------------------------------------------------------------------------------
FOLDED = "a normalisation is folded into its neighbour, with the gain that made a symmetry"
UNTIED = "a tied weight is stored twice, once transposed"
EXPORTED = {
    **dict.fromkeys(("deepfm.dynamo", "densenet.raw", "mlp_batchnorm.dynamo", "vgg13_bn.raw"), FOLDED),
    **dict.fromkeys(("bert.int4_blocks", "llama.int4_blocks"), "the scales of 4-bit blocks tie the units of a block"),
    "tied_autoencoder.dynamo": UNTIED,
    "mlp_groupnorm.dynamo": "ones and zeros of an inner InstanceNormalization are stored once for two layers",
    "mlp_groupnorm.opset23": "GroupNormalization needs no ones and zeros for an inner InstanceNormalization",
    "rbf_network.dynamo": "the exporter takes the absolute value, which hid a sign, and stores it",
    "siamese.raw_dynamo": "the cut-off of two norms, in place of their product's",
}
MISSED = {
    **dict.fromkeys(("mlp_hardshrink.dynamo", "mlp_softshrink.dynamo"), "an odd function in pieces keeps no sign"),
}
"""Where symlint lacks something in one of two files."""


@pytest.mark.corpus
@pytest.mark.parametrize(("base", "name"), DERIVED)
def test_another_export_has_the_same_symmetries(base: str, name: str, shared: Path) -> None:
    """Files of the zoo with the same network: other exporters, opsets, optimisers, number formats."""
    before, after = (signature(ZOO / f"{n}.onnx") for n in (base, name))
    judge(before, after, {**EXPORTED, **MISSED}.get(name), rounded="int8" in name)


# -- routes that are gone here -----------------------------------------------------------------------------------------
def optimised(file: Path, feeds: Arrays, out: Path) -> None:
    """onnxruntime's fusions. One level further it stores convolutions in blocks of this processor's registers."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(out)
    options.log_severity_level = 3
    ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def half(file: Path, feeds: Arrays, out: Path) -> None:
    """Weights and values in float16."""
    float16 = pytest.importorskip("onnxruntime.transformers.float16")
    onnx.save(float16.convert_float_to_float16(onnx.load(file), keep_io_types=True), out)


def quantised(file: Path, feeds: Arrays, out: Path) -> None:
    """8 bits with one scale per channel; every value is quantised and dequantised."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    batches = iter([feeds])
    reader = type("Reader", (quantization.CalibrationDataReader,), {"get_next": lambda _: next(batches, None)})
    quantization.quantize_static(str(file), str(out), reader(), per_channel=True)


def slimmed(file: Path, feeds: Arrays, out: Path) -> None:
    """Another optimiser, which many run before they ship a file."""
    onnx.save(pytest.importorskip("onnxslim").slim(str(file)), out)


TWICE = "a bias that two layers read is quantised a second time, and the first one is left, free and read by nothing"
PARTS = "parts that would change places have grids of their own for their values"
STORED = "a mask or table that the file computed is stored as numbers, which nothing tells from weights"
CHANGED: dict[Callable[..., None], dict[str, str]] = {
    optimised: {
        **dict.fromkeys(("alibi", "relative_bias", "rotary_half", "rotary_interleaved"), STORED),
        **dict.fromkeys(("weight_norm", "weight_norm_behind_relu"), "a weight is stored normalised"),
        **dict.fromkeys(("cosine_scores", "cosine_classifier"), "a weight is stored normalised"),
        **dict.fromkeys(("batchnorm", "batchnorm_bias"), FOLDED),
        **dict.fromkeys(("rms_tied", "tied_linear"), UNTIED),
    },
    half: {},
    quantised: {
        "router": "a scale per column of all experts together ties their units",
        **dict.fromkeys(("two_heads_added", "mean_of_two", "towers"), PARTS),
        **dict.fromkeys(("gated_branches", "joined_branches", "product_of_layers"), PARTS),
        **dict.fromkeys(("siamese", "shared_branches", "shared_layers"), TWICE),
    },
}


@pytest.mark.parametrize(("route", "name"), [(route, name) for route in CHANGED for name in SMALL])
def test_a_small_network_keeps_its_symmetries(route: Callable[..., None], name: str, tmp_path: Path) -> None:
    """Fused, in float16, or on a grid."""
    net, file, out = SMALL[name], tmp_path / "net.onnx", tmp_path / "out.onnx"
    onnx.save(net.model("float32", net.values()), file)
    feeds = {n: v.astype(np.float32) if v.dtype.kind == "f" else v for n, v in net.feeds(4).items()}
    route(file, feeds, out)
    judge(signature(file), signature(out), CHANGED[route].get(name), rounded=route is quantised)


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["bert", "resnet18", "llama", "vit_timm", "lstm", "mobilenet_v2", "t5"])
def test_onnxslim_keeps_the_symmetries(name: str, shared: Path, tmp_path: Path) -> None:
    """What it folds and fuses in networks of the zoo."""
    slimmed(ZOO / f"{name}.onnx", {}, tmp_path / "slim.onnx")
    judge(signature(ZOO / f"{name}.onnx"), signature(tmp_path / "slim.onnx"), None)


def conv(nn: Any) -> list[Any]:
    first = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.Tanh()]
    return [*first, nn.Flatten(), nn.Linear(216, 5)]


def attention(nn: Any) -> list[Any]:
    block = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu")
    return [nn.Linear(8, 8), block, nn.Linear(8, 4)]


SCALE = "the scale of queries and keys, a stored tensor of one number, becomes an attribute of their product"


@pytest.mark.parametrize(("build", "shape"), [(conv, (2, 3, 8, 8)), (attention, (2, 6, 8))])
def test_every_route_from_torch(build: Callable[[Any], list[Any]], shape: tuple[int, ...], tmp_path: Path) -> None:
    """Two exporters, then nothing, an optimiser, another one, float16, or a grid: one signature."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    torch.backends.mha.set_fastpath_enabled(False)  # its operator has no place in ONNX
    torch.manual_seed(0)
    model = torch.nn.Sequential(*build(torch.nn)).eval()
    for values in model.parameters():
        values.data.copy_(torch.randn(values.shape))
    x, found = torch.randn(shape), {}
    for dynamo in (False, True):
        file = tmp_path / f"{dynamo}.onnx"
        torch.onnx.export(model, (x,), str(file), dynamo=dynamo, input_names=["x"])
        found[f"{dynamo}", None] = signature(file)
        for route in (optimised, half, slimmed, quantised):
            route(file, {"x": x.numpy()}, tmp_path / f"{dynamo}.{route.__name__}.onnx")
            found[f"{dynamo}", route] = signature(tmp_path / f"{dynamo}.{route.__name__}.onnx")
    for (_, route), one in found.items():
        reason = SCALE if build is attention and route is optimised else None
        judge(found["False", None], one, reason, rounded=route is quantised)
