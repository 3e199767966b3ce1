"""`symlint.torch`: parametrisations leave the function, decay leads them where it should, and a watch sees it."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from inspect import signature
from itertools import pairwise

import pytest

import symlint

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")
from symlint import torch as remedies  # noqa: E402 - after torch is known to be there

nn = torch.nn
OLDER = {"dynamo": False} if "dynamo" in signature(torch.onnx.export).parameters else {}
"""Asks for the exporter that every version has: older ones have no other."""
SURFACES = {
    "sparse": (remedies.sparse, "0.weight"),
    "units": (remedies.sparse_units, "0.weight"),
    "inputs": (lambda: remedies.sparse_units(axis=1), "0.weight"),
    "rank": (remedies.low_rank, "2.weight"),
    "tied": (lambda: remedies.tied(0, 2, 5, of=8), "0.weight"),
    "weights": (lambda: remedies.mirror(torch.randn(24, 2)), "2.weight"),
    "bias": (remedies.sparse, "0.bias"),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def perceptron(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(part for pair in pairwise(widths) for part in (nn.Linear(*pair), nn.ReLU())))[:-1]


def convolutions() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))


def train(module: nn.Module, decay: float, steps: int, rate: float = 0.1) -> nn.Module:
    """Towards nothing: only what holds the weights is left."""
    optimiser = torch.optim.SGD(module.parameters(), lr=rate, weight_decay=decay, momentum=0.9)
    for _ in range(steps):
        optimiser.zero_grad()
        (0 * sum(p.sum() for p in module.parameters())).backward()
        optimiser.step()
    return module


def near(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (
            lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)),
            (2, 3, 6, 6),
        ),
        (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0), (2, 5, 8)),
        (lambda: nn.LSTM(4, 6), (5, 2, 4)),
    ],
    ids=["convolutions", "attention", "recurrence"],
)
def test_without_symmetries_the_function_is_as_it_was_and_what_is_baked_is_plain(module, shape):
    torch.manual_seed(0)
    x, trained = torch.randn(shape), module()
    before, parameters = deepcopy(trained), list(trained.parameters())
    assert remedies.remove_symmetries(trained, generator=seeded()) is trained
    assert {id(p) for p in trained.parameters()} == {id(p) for p in parameters}  # an optimiser may be there already
    outputs = [m(x) if not isinstance(m, nn.LSTM) else m(x)[0] for m in (before, trained)]
    assert near(*outputs)
    plain = remedies.bake(trained)
    assert type(plain) is type(before)
    assert plain.state_dict().keys() == before.state_dict().keys()
    assert all(near(a, before.state_dict()[n]) for n, a in plain.state_dict().items())
    trained.train()
    optimiser = torch.optim.SGD(trained.parameters(), lr=0.1)
    for _ in range(2):  # what was baked has not taken anything away
        y = trained(x)
        (y[0] if isinstance(y, tuple) else y).square().sum().backward()
        optimiser.step()
    moved = remedies.bake(trained)
    x = x[:1] if isinstance(trained, nn.Sequential) else x
    a, b = trained.eval()(x), moved.eval()(x)
    assert near(a[0], b[0])
    assert not near(a[0], (before.eval()(x))[0])


def test_decay_leads_to_fixed_random_weights_of_the_stated_size_unevenly():
    module = remedies.remove_symmetries(nn.Linear(100, 400), generator=seeded())
    held = module.parametrizations.weight[0]
    strength = held.scale**-2
    assert 0.9 <= strength.min() < 0.91
    assert 1.09 < strength.max() <= 1.1
    final = remedies.bake(train(module, 0.5, 600)).weight
    assert near(final, held.origin)
    assert final.std().item() == pytest.approx(0.001, rel=0.02)


def test_one_seed_draws_the_same_again():
    made = [remedies.remove_symmetries(nn.Linear(3, 2), 0.1, generator=seeded(4)) for _ in range(2)]
    first, second = (remedies.bake(train(module, 1, 600)) for module in made)
    assert near(first.weight, second.weight)
    assert first.weight.abs().min() > 0


def test_shared_frozen_and_parametrised_weights():
    torch.manual_seed(0)
    module = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 4), "d": nn.Linear(4, 4)})
    module["b"].weight = module["a"].weight
    module["c"].requires_grad_(False)
    before = deepcopy(module)
    remedies.constrain(module, "d.weight", remedies.sparse())
    remedies.remove_symmetries(module)
    assert torch.equal(module["a"].weight, module["b"].weight)
    assert len(module["d"].parametrizations.weight) == 1
    assert not hasattr(module["c"], "parametrizations")
    plain = remedies.bake(module)
    assert plain["a"].weight is plain["b"].weight
    assert all(near(value, before.state_dict()[name]) for name, value in plain.state_dict().items())
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        remedies.remove_symmetries(module)


@pytest.mark.parametrize("case", SURFACES)
def test_a_constraint_leaves_the_function_and_decay_reaches_its_surface(case):
    make, name = SURFACES[case]
    module = perceptron(6, 8, 3)
    before = module.get_parameter(name).detach().clone()
    assert remedies.constrain(module, name, make()) is module
    assert near(remedies.bake(module).get_parameter(name), before)
    after = remedies.bake(train(module, 0.5, 2500)).get_parameter(name)
    if case == "tied":
        assert torch.equal(after[[0, 0]], after[[2, 5]])
    elif case == "weights":
        directions = torch.linalg.qr(module[2].parametrizations.weight[0].directions)[0]
        assert (directions.mT @ after.flatten()).abs().max() < 1e-7
    else:
        assert not after.any()


def test_what_is_constrained_beyond_what_it_is_not():
    """The part of the weights off O is trained as it is."""
    module = remedies.constrain(perceptron(6, 8), "0.weight", remedies.tied(1, 4, of=8))
    train(module, 0.0, 3)
    mean, gate = module[0].weight[[1, 4]].mean(0), module[0].parametrizations.weight.original0
    with torch.no_grad():
        gate.zero_()
    assert near(module[0].weight[1], mean)
    assert torch.equal(module[0].weight[1], module[0].weight[4]) or near(module[0].weight[1], module[0].weight[4])


def test_zeros_can_leave_a_surface():
    module = nn.Linear(3, 3)
    nn.init.zeros_(module.weight)
    remedies.constrain(module, "weight", remedies.sparse())
    module(torch.ones(1, 3)).sum().backward()
    assert module.parametrizations.weight.original1.grad.all()
    assert not module.weight.any()


def test_a_width_bounds_the_rank():
    module = remedies.constrain(nn.Conv2d(4, 6, 3), "weight", remedies.low_rank(2))
    assert torch.linalg.matrix_rank(remedies.bake(module).weight.flatten(1)) == 2


def test_what_cannot_be_constrained_is_told():
    module = perceptron(6, 8, 8)
    with pytest.raises(ValueError, match=r"2\.wait: no parameter.* has 0\.weight, 0\.bias, 2\.weight, 2\.bias"):
        remedies.constrain(module, "2.wait", remedies.sparse())
    with pytest.raises(ValueError, match="directions have 5 rows, and there are 8 units along axis 0"):
        remedies.constrain(module, "2.weight", remedies.mirror(torch.ones(5, 1), axis=0))
    with pytest.raises(ValueError, match="expected two or more different ones from 0 to 3"):
        remedies.tied(1, 4, of=4)
    pair = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    pair[1].weight = pair[0].weight
    with pytest.raises(ValueError, match=r"0\.weight is shared"):
        remedies.constrain(pair, "0.weight", remedies.sparse())
    with pytest.raises(ValueError, match="unevenness is 1"):
        remedies.remove_symmetries(module, unevenness=1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the exporter
def test_a_watch_tells_what_profile_tells_of_exported_checkpoints(tmp_path):
    module, x = perceptron(6, 16, 12, 3), torch.randn(1, 6)
    remedies.remove_symmetries(module[2:], generator=seeded())
    watch = remedies.Watch(module, x, every=2)
    files = []
    for step in range(5):
        if step % 2 == 0:
            files.append(tmp_path / f"{step}.onnx")
            torch.onnx.export(remedies.bake(module), (x,), str(files[-1]), **OLDER)
        with torch.no_grad():
            module[0].weight[step], module[0].bias[step] = 0, 0
            module[2].parametrizations.weight.original.mul_(0.5)
        watch()
    seen, told = watch.profile.to_dicts(), symlint.profile(*files).to_dicts()
    assert [row["model"] for row in seen] == ["step 0"] * 2 + ["step 2"] * 2 + ["step 4"] * 2
    assert [row["live"] for row in seen if row["units"] == 16] == [16, 14, 12]
    columns = [c for c, value in seen[0].items() if isinstance(value, (int, float)) and not isinstance(value, bool)]
    for a, b in zip(seen, told, strict=True):
        assert [a[c] for c in columns] == [pytest.approx(b[c], rel=1e-5) for c in columns]
    assert "step 0 to step 4" in str(watch.profile)


def test_a_watch_is_a_callback_and_leaves_the_module_as_it_is():
    module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2)).train()
    watch = remedies.Watch(module, {"input": torch.randn(1, 4)}, every=1)
    watch.on_train_begin(None, None, None)
    watch.on_step_end(object(), object(), None, model=module)
    assert [row["model"] for row in watch.profile.to_dicts()] == ["step 0", "step 1"]
    assert module.training
    assert module[1].training
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        watch.nothing  # noqa: B018


def test_without_torch_the_way_out_is_told():
    code = "import sys; sys.modules['torch'] = None; import symlint.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: PyTorch is not installed, and the extra `torch` brings it: pip install 'symlint[torch]'"
    )
