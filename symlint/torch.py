"""For PyTorch: training without mirror symmetries, constraints made of one, and what becomes of a network meanwhile.

Among weights that a symmetry makes alike, decay and gradient noise choose constrained ones: units die, ranks fall,
units become equal. `remove_symmetries` takes the symmetries away, `constrain` builds one in on purpose, `Watch` tells
what has come of them. The former two are parametrisations of the module (`torch.nn.utils.parametrize`), for any loop
and any optimiser that decays weights; `bake` gives the plain module. Nothing else of symlint imports this.

Source: Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024, arXiv 2309.16932); Ziyin, Xu and
Chuang, Remove Symmetries to Control Model Expressivity and Improve Optimization (ICLR 2025, arXiv 2408.15495).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from inspect import signature
from io import BytesIO
from math import prod
from typing import Any

from symlint.api.calls import stored
from symlint.api.reports import Profile
from symlint.comparison.trajectory import Follower, Trajectory
from symlint.lint.configuration import Configurations
from symlint.lint.rule import rules

try:
    import torch
    from torch import Tensor, nn
    from torch.nn.utils import parametrize
except ImportError as missing:
    needed = "PyTorch is not installed, and the extra `torch` brings it: pip install 'symlint[torch]'"
    raise ImportError(needed) from missing

__all__ = ["Watch", "bake", "constrain", "low_rank", "mirror", "remove_symmetries", "sparse", "sparse_units", "tied"]


class _Static(nn.Module):  # type: ignore[misc]  # torch is an extra: to mypy it is Any, installed or not
    """Weights origin + scale * theta: where theta decays evenly, they decay to the origin, unevenly."""

    def __init__(self, origin: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("origin", origin)
        self.register_buffer("scale", scale)

    def forward(self, theta: Tensor) -> Tensor:
        return self.origin + self.scale * theta


def remove_symmetries(
    module: nn.Module, sigma: float | None = None, *, unevenness: float = 0.1, generator: torch.Generator | None = None
) -> nn.Module:
    """The module, in place, without mirror symmetries: syre.

    Every parameter is theta0 + s theta from now on, with fixed random theta0 and s; theta is trained and decays. The
    function is as before up to rounding, and the Parameter objects are those of before: an optimiser may be there
    already. It has to decay all of them, as ``weight_decay`` of SGD and AdamW does.

    Args:
        module: of which parameters without gradient, and parametrised ones, are left alone.
        sigma: standard deviation of theta0; by default 0.01 / sqrt(fan-in) for each tensor, where the fan-in is the
            product of its dimensions but the first (1 for vectors).
        unevenness: the strengths of decay of single weights, which are 1 / s^2, are even in 1 -+ this.
        generator: draws theta0 and s; by default torch's own.

    Raises `ValueError` where there is nothing to train, and where unevenness is not in [0, 1).
    """
    if not 0 <= unevenness < 1:
        raise ValueError(f"unevenness is {unevenness}; strengths of decay are 1 -+ this, so it is from 0 to below 1")
    made: dict[nn.Parameter, _Static] = {}
    places = [place for place in _places(module) if place[2].requires_grad]
    if not places:
        raise ValueError(f"{type(module).__name__} has no parameter that requires a gradient and is not parametrised")
    for owner, name, parameter in places:
        if parameter not in made:
            deviation = 0.01 / prod(parameter.shape[1:]) ** 0.5 if sigma is None else sigma
            origin = deviation * _drawn(torch.randn, parameter, generator)
            strength = 1 + unevenness * (2 * _drawn(torch.rand, parameter, generator) - 1)
            made[parameter] = _Static(origin, strength.rsqrt())
            with torch.no_grad():
                parameter.sub_(origin).mul_(strength.sqrt())
        _parametrise(owner, name, made[parameter])
    return module


class _Mirror(nn.Module):  # type: ignore[misc]  # see above
    """Weights (1 - O O^T) free + O (gate * held): changing the signs of gate and held changes nothing.

    With decay gamma of all of them, what is added to the loss is gamma |O^T theta|, direction by direction.
    """

    def __init__(self, axis: int | None, directions: Tensor | None = None) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("directions", None if directions is None else torch.linalg.qr(directions)[0])

    def forward(self, gate: Tensor, held: Tensor, free: Tensor | None = None) -> Tensor:
        moved = gate * held
        if free is not None:
            moved = free + self.directions @ (moved - self.directions.mT @ free)
        return moved.reshape(self.front).movedim(0, self.axis or 0)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The point of least norm among what gives these weights."""
        turned = weight.movedim(self.axis or 0, 0)
        self.front = turned.shape
        units = turned.reshape(-1, 1) if self.axis is None else turned.flatten(1)
        if self.directions is not None and len(self.directions) != len(units):
            where = "weights" if self.axis is None else f"units along axis {self.axis}"
            raise ValueError(f"directions have {len(self.directions)} rows, and there are {len(units)} {where}")
        along = units if self.directions is None else self.directions.mT @ units
        length = along.norm(dim=1, keepdim=True)
        # A direction that starts on the surface could never leave it with both factors at zero.
        gate = torch.where(length > 0, length, length.mean().clamp_min(1e-3)).sqrt()
        free = () if self.directions is None else (units - self.directions @ along,)
        return gate, along / gate, *free


class _Product(nn.Module):  # type: ignore[misc]  # see above
    """Weights that are a product of two matrices; with decay gamma that adds gamma times their nuclear norm."""

    def __init__(self, width: int | None) -> None:
        super().__init__()
        self.width = width

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return (left @ right).reshape(self.shape)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of least norm."""
        self.shape = weight.shape
        u, s, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
        root = s[: self.width].sqrt()
        return u[:, : self.width] * root, root[:, None] * v[: self.width]


def sparse() -> _Mirror:
    """A surface: single weights are zero. Weight decay gamma adds gamma times the sum of their absolute values."""
    return _Mirror(None)


def sparse_units(axis: int = 0) -> _Mirror:
    """A surface: all weights of a unit along an axis are zero. Decay adds the sum of the units' lengths."""
    return _Mirror(axis)


def tied(*units: int, of: int, axis: int = 0) -> _Mirror:
    """A surface: units along an axis of `of` units are equal, as a swap of any two of them leaves them."""
    if len(set(units)) != len(units) or len(units) < 2 or not all(0 <= unit < of for unit in units):
        raise ValueError(f"units {units}: expected two or more different ones from 0 to {of - 1}")
    identity = torch.eye(of)
    return _Mirror(axis, torch.stack([identity[units[0]] - identity[unit] for unit in units[1:]], 1))


def low_rank(width: int | None = None) -> _Product:
    """A surface: the matrix (first dimension by all others) is of low rank, of at most `width` where that is given."""
    return _Product(width)


def mirror(directions: Tensor, axis: int | None = None) -> _Mirror:
    """A surface O of your own: O^T theta = 0, column by column.

    Args:
        directions: linearly independent columns, of shape (weights, k), over all numbers of the tensor in C order,
            or of shape (units, k) where an axis is given; only what they span counts.
        axis: of the units.
    """
    return _Mirror(axis, directions.detach())


def constrain(module: nn.Module, name: str, surface: nn.Module) -> nn.Module:
    """The module, in place, with a mirror symmetry built into one parameter: a differentiable constraint (DCS).

    The tensor becomes a function of several parameters on which weight decay acts, which drives O^T theta to exactly
    zero, where the loss does not need it, without a projection. The function is as before the call up to rounding (but
    for `low_rank` with a width). An optimiser is to be made after the call, since there are other parameters now.

    Args:
        module: that holds the parameter.
        name: as `named_parameters` has it, such as ``layers.0.weight``.
        surface: one of `sparse`, `sparse_units`, `tied`, `low_rank` and `mirror`, made for this parameter.

    Raises `ValueError` where there is no such parameter, and where it has more than one place in the module.
    """
    parameter: Any = dict(module.named_parameters(remove_duplicate=False)).get(name)
    places = [(owner, own) for owner, own, one in _places(module) if one is parameter]
    if not places:
        known = ", ".join(one for one, _ in module.named_parameters())
        raise ValueError(f"{name}: no parameter, or one that is parametrised already; this module has {known}")
    if len(places) > 1:
        raise ValueError(f"{name} is shared by several modules, and a constraint of one of them would untie it")
    _parametrise(*places[0], surface.to(parameter.device, parameter.dtype))
    return module


def bake(module: nn.Module) -> nn.Module:
    """A copy of a module without any parametrisation: parameters with the weights in force, computed in float64."""
    plain = deepcopy(module)
    owners = [one for one in plain.modules() if parametrize.is_parametrized(one)]
    kinds = {one: {name: getattr(one, name).dtype for name in one.parametrizations} for one in owners}
    with torch.no_grad():
        values = {one: {name: held.double()() for name, held in one.parametrizations.items()} for one in owners}
    for owner in owners:
        lists = owner.parametrizations
        # Not by remove_parametrizations, which takes the property from the class that the copied module has as well.
        del owner.parametrizations
        owner.__class__ = type(owner).__bases__[0]
        for name, held in lists.items():
            # A parameter that modules share is one object, and stays one.
            parameter = held.original if held.is_tensor else nn.Parameter(held.original0)
            parameter.requires_grad_(any(one.requires_grad for one in held.parameters()))
            parameter.grad, parameter.data = None, values[owner][name].to(kinds[owner][name])
            owner.register_parameter(name, parameter)
        if hasattr(owner, "_flat_weights_names"):
            owner._flat_weights = [getattr(owner, name) for name in owner._flat_weights_names]  # noqa: SLF001 - torch's
    return plain


class Watch:
    """What becomes of every space of a network while it is trained: live units, effective width, ranks.

    Called once a step, with whatever arguments, it looks each time so many steps have passed, and first when it is
    made. `profile` is that of `symlint profile`, with steps for files. In a loop: ``watch()``. Of Hugging Face's
    Trainer it is a callback itself; of Lightning ``LambdaCallback(on_train_batch_end=watch)`` is one.
    """

    def __init__(self, module: nn.Module, example: Any, every: int = 1000, *, config: str | None = None) -> None:
        """Look at the network as it is.

        Args:
            module: that is trained; it is copied for each look, and left as it is.
            example: what it is called with, where it is: a tensor, a tuple of arguments, or a dict of named ones.
            every: steps between looks.
            config: as of `symlint.profile`.

        Raises what `torch.onnx.export` does where the module cannot be exported.
        """
        self.module, self.example, self.every, self.step = module, example, every, 0
        self._settings, self._follower = Configurations(config).run, Follower(rules())
        self.look()

    def __call__(self, *_given: object, **_named: object) -> None:
        """Count a step, and look where it is time."""
        self.step += 1
        if self.step % self.every == 0:
            self.look()

    on_step_end = __call__  # of Hugging Face's Trainer

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Nothing is done at the other events of a Trainer."""
        if name.startswith("on_"):
            return lambda *_given, **_named: None
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def look(self) -> None:
        """Add the network as it is now to the record."""
        with stored(_exported(self.module, self.example)) as (file,):
            context = self._follower.follow(file.path, self._settings, f"step {self.step}")
            file.outlive(context.symmetry.model.weights)  # the next look is matched with them

    @property
    def profile(self) -> Profile:
        """What was seen so far."""
        return Profile(Trajectory(tuple(self._follower.portraits)))


def _places(module: nn.Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Every plain parameter, where it is: the module, the name in it, and itself; a tied one as often as it is used."""
    held = [one.parametrizations for one in module.modules() if parametrize.is_parametrized(one)]
    owners = set(module.modules()).difference(*(one.modules() for one in held))
    each = ((one, one.named_parameters(recurse=False, remove_duplicate=False)) for one in module.modules())
    return [(one, name, parameter) for one, named in each if one in owners for name, parameter in named]


def _drawn(kind: Callable[..., Tensor], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random numbers of the shape, type and place of a tensor."""
    device = like.device if generator is None else generator.device
    return kind(like.shape, generator=generator, device=device).to(like)


def _parametrise(owner: nn.Module, name: str, by: nn.Module) -> None:
    parametrize.register_parametrization(owner, name, by)
    if names := getattr(owner, "_flat_weights_names", None):
        # Recurrent layers hold their weights a second time; the class is the one that torch has made for this module.
        type(owner)._flat_weights = property(lambda one: [getattr(one, n) for n in names], lambda *_: None)  # noqa: SLF001


def _exported(module: nn.Module, example: Any) -> bytes:
    plain, file = bake(module).eval(), BytesIO()
    given = example if isinstance(example, tuple) else (example,)
    # The older exporter keeps names, and needs no package beside torch; from opset 17 on LayerNorm is one node.
    older = {"dynamo": False} if "dynamo" in signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(plain, given, file, opset_version=17, **older)
    return file.getvalue()
