"""Models that are written tensor by tensor: in one file, with data beside it, over what they are read from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from symlint.model import saving
from symlint.model.load import load
from symlint.model.saving import write
from symlint.model.stored import same_bytes


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Large weights in the graph, in a Constant node and in the body of an If, and a small one."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)

    def branch(name: str) -> onnx.GraphProto:
        node = helper.make_node("MatMul", ["y", f"w_{name}"], [name])
        return helper.make_graph(
            [node], name, [], [helper.make_tensor_value_info(name, 1, None)], [weight(f"w_{name}", 32, 32)]
        )

    nodes = [
        helper.make_node("Constant", [], ["c"], value=weight("c", 32, 32)),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "c"], ["b"]),
        helper.make_node("Add", ["b", "bias"], ["y"]),
        helper.make_node("If", ["which"], ["z"], then_branch=branch("p"), else_branch=branch("q")),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16]),
        helper.make_tensor_value_info("which", TensorProto.BOOL, []),
    ]
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 32])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight("w", 16, 32), weight("bias", 32)])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def _numbers(path: Path) -> dict[str, bytes]:
    return {name: tensor.read().tobytes() for name, tensor in load(path).tensors.items()}


@pytest.mark.parametrize("data", ["", "out.bin"])
def test_what_is_written_is_what_was_read(network: Path, tmp_path: Path, data: str) -> None:
    out = tmp_path / "out.onnx"
    saving.save(saving.opened(network), out, data=data, least=1024)
    onnx.checker.check_model(out, full_check=True)
    assert _numbers(out) == _numbers(network)
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "out.onnx", *([data] if data else [])}
    assert set(saving.outside(saving.opened(out))) == ({data} if data else set())


def test_a_model_may_be_written_over_itself(network: Path) -> None:
    before = _numbers(network)
    for data in ("model.onnx.data", "model.onnx.data", ""):
        saving.save(saving.opened(network), network, data=data, least=1024)
        assert _numbers(network) == before


def test_data_of_the_model_itself_are_not_overwritten(network: Path, tmp_path: Path) -> None:
    saving.save(saving.opened(network), network, data="out.onnx.data", least=1024)
    before = _numbers(network)
    write(network, {"w": np.zeros((16, 32), np.float32)}, tmp_path / "out.onnx")
    assert _numbers(network) == before
    assert _numbers(tmp_path / "out.onnx") == {**before, "w": bytes(16 * 32 * 4)}


def test_what_protobuf_cannot_hold_is_stored_beside_the_file(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "PROTOBUF_LIMIT", saving._ROOM + 1024)
    out = tmp_path / "out.onnx"
    saving.save(saving.opened(network), out)
    assert (tmp_path / "out.onnx.data").is_file()
    assert _numbers(out) == _numbers(network)


def test_large_tensors_stay_in_their_file_until_they_are_asked_for(network: Path) -> None:
    model = saving.opened(network)
    assert {tensor.name for tensor in saving.stored(model)} == {"w", "c", "w_p", "w_q"}
    weight = model.graph.initializers["w"].const_value
    assert isinstance(weight, saving.Stored)
    assert weight.dtype == ir.DataType.FLOAT
    assert weight.numpy().tobytes() == weight.tobytes() == _numbers(network)["w"]


def test_files_of_the_same_bytes_are_known(network: Path, tmp_path: Path) -> None:
    copy, other = tmp_path / "copy.onnx", tmp_path / "other.onnx"
    copy.write_bytes(network.read_bytes())
    write(network, {"bias": np.zeros(32, np.float32)}, other)
    assert same_bytes(load(network), load(copy))
    assert not same_bytes(load(network), load(other))
