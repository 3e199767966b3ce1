"""The canonical form of a network: one place on the orbit of its weights, whichever it is at.

Translations are settled; among what rescalings and invertible maps lead to, the weights of least norm are taken, which
are unique up to rotations, signs and the order of units (Kempf and Ness). Rotations turn units into the eigenvectors of
their Gram matrix, largest first; signs are those with positive sums of cubes; units are in the order of sums over their
weights. Each is told from what is settled already: from inputs, whose units stay, towards outputs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import TypeVar

import numpy as np

from symlint.evidence.settled import reread, settled
from symlint.model.graph import Array, Tensor
from symlint.model.records import dataclass
from symlint.model.stored import CODES, numpy_type
from symlint.symmetry.actions.base import Action
from symlint.symmetry.actions.permutation import PartExchange, UnitPermutation
from symlint.symmetry.actions.rotation import InvertibleMap, OrthogonalMap, PlaneRotation, Rotation
from symlint.symmetry.actions.scaling import Rescaling, SignFlip, TensorRescaling
from symlint.symmetry.actions.translation import lines
from symlint.symmetry.gauge.scales import FINE, ROUNDING, SETTLED, Scales, added, gauge, quantised, two_sided
from symlint.symmetry.kinds.whole import whole
from symlint.symmetry.motion.action import Stand
from symlint.symmetry.motion.motion import Weights, across_ones, as_divisor
from symlint.symmetry.structure import Structure

ROUNDS = 60
"""Of settling, rescaling and balancing in turn, after which the weights are taken as they are."""
STILL = 1e-10
"""A change of the weights, relative to the largest, that ends the rounds."""
PASSES = 2
"""Signs may turn a plane round, and the angles of planes follow from signs."""
TELLING = 1e-4
"""The sum of cubes that tells a sign, beside that of their sizes."""
DEFICIENT = 1e-10
"""The least eigenvalue of a Gram matrix beside the largest, below which a space has no full rank and stays."""
Kind = TypeVar("Kind", bound=Action)


@dataclass(frozen=True, slots=True)
class Met:
    """An occurrence of a space in a weight, as rows over its units."""

    name: str
    stand: Stand
    power: float
    """The charge; 0 where an action has none."""
    rows: Array
    owner: Array
    """The copy that each row belongs to."""

    @property
    def place(self) -> tuple[str, int, int, int]:
        """As occurrences have it."""
        return self.name, self.stand.axis, self.stand.term, self.stand.place


def canonical(structure: Structure) -> dict[str, Array]:
    """New values, in their stored type, of the tensors that are elsewhere in the canonical form of the network.

    Computed in float64 and rounded once; empty where all weights are there to within 64 roundings. Of quantised
    networks, and of weights with infinities or NaN, only the order of units is settled. Dead units keep their scale,
    and spaces under invertible maps that are not of full rank their basis.
    """
    tensors = structure.program.model.tensors
    stored = {name: tensors[name] for name in structure.program.weights.values()}
    finite = all(np.isfinite(tensor.read()).all() for tensor in stored.values() if tensor.floating)
    smooth = finite and not quantised(structure.program.model.graph)
    form = Form(structure)
    if smooth:
        form.least()
    form.exchanged()
    for _ in range(PASSES if smooth else 0):
        form.turned()
        form.settle()
    form.ordered()
    made = form.values()
    if all(_near(stored[name], values) for name, values in made.items()):
        return {}
    return made


class Form:
    """The weights on their way."""

    def __init__(self, structure: Structure) -> None:
        self.structure, tensors = structure, structure.program.model.tensors
        self.weights = Weights(structure, lambda stored: tensors[stored].read())
        self.biases = added(structure)
        factors, axes = structure.axes.factors, structure.axes.of
        self.held = {n: [x for f in axes[n] for x in factors.leaves(f)] for n in structure.program.weights}
        """Weight of the program -> the leaves along its axes, each as often as it is there."""
        frames = [frame for a in self.all(OrthogonalMap) for frame in a.frames.values()]
        self.gains = {gain for frame in frames for gain, _ in frame}
        """What tells units of rotations apart."""

    def values(self) -> dict[str, Array]:
        """What has changed, in the types of the file."""
        tensors = self.structure.program.model.tensors
        made = {name: _rounded(tensors[name], values) for name, values in self.weights.now.items()}
        return {name: values for name, values in made.items() if not np.array_equal(values, tensors[name].read())}

    def least(self) -> None:
        """The weights of least norm."""
        stored = list(self.structure.program.weights.items())
        for _ in range(ROUNDS):
            before = {held: self.weights.get(name) for name, held in stored}
            self.settle()
            self.rescale()
            for action in self.all(InvertibleMap):
                action.move(self.weights, self.balancing(action))
            if all(_still(before[held], values) for held, values in self.weights.now.items()):
                return

    def exchanged(self) -> None:
        """Parts that compute alike in the order of the norms of their weights."""
        for action in self.all(PartExchange):
            sizes = [
                [self._norm(own) for (kind, _), (_, own) in image.items() if kind == "tensor" and own in self.held]
                for image in action.branches.images
            ]
            action.move(self.weights, np.array(sorted(range(len(sizes)), key=lambda k: sizes[k])))

    def turned(self) -> None:
        """Rotations and signs, from what is settled on."""
        turning: list[Action] = [*self.structure.rotations, *self.all(SignFlip)]
        for action, names in self._each(turning):
            met = self.met(action)
            if isinstance(action, PlaneRotation):
                action.move(self.weights, self._angles(action))
                action.move(self.weights, np.where(self.sums(action, self.met(action)[::2], 3) < 0, np.pi, 0.0))
            elif isinstance(action, Rotation):
                action.move(self.weights, self._axes(action, [one for one in met if one.name in names] or met))
            elif isinstance(action, SignFlip):
                self._flip(action, names)

    def _flip(self, action: SignFlip, names: Collection[str]) -> None:
        """All sign symmetries of a space: one after another makes a weight positive, and no other turns it back."""
        flips = {a.id: a for a in self.all(SignFlip) if (a.leaf, a.copies) == (action.leaf, action.copies)}
        left = [frozenset([one]) for one in flips]
        for name in sorted(self.held, key=lambda name: (not self._tells(action, name), name not in names)):
            turning = [some for some in left if sum(self._odd(flips[a], name) for a in some) % 2]
            if not turning:
                continue
            chosen, others = turning[0], turning[1:]
            met = [one for one in self.met(flips[min(chosen)]) if one.name == name]
            signs = np.where(self.sums(action, met, 3) < 0, -1.0, 1.0)
            for one in chosen:
                flips[one].move(self.weights, signs)
            left = [some ^ chosen if some in others else some for some in left if some != chosen]

    def _tells(self, action: Action, name: str) -> bool:
        """Whether the cubes of a weight have a sum, which those of weights without a mean need not."""
        met = [one for one in self.met(action) if one.name == name]
        sums = self.sums(action, met, 3)
        sizes = self.sums(action, [replace(one, rows=np.abs(one.rows)) for one in met], 3)
        return bool((np.abs(sums) >= TELLING * sizes).all())

    def _odd(self, action: SignFlip, name: str) -> bool:
        """Whether a weight changes its sign with its units."""
        return sum(int(power) for power in action.powers(name).values()) % 2 == 1

    def ordered(self) -> None:
        """Units in order, from what is in order on."""
        for action, names in self._each(self.all(UnitPermutation)):
            *copies, n = action.shape(self.structure)
            keys = np.zeros((prod(copies), n))
            for number, one in enumerate(self.met(action)):
                # Where all else is in order each number tells of its place; else what no order changes does.
                told = np.random.default_rng(number).uniform(1, 2, (len(one.rows) if one.name in names else 1, 1))
                np.add.at(keys, one.owner, (one.rows if one.name in names else one.rows**2) * told)
            action.move(self.weights, np.argsort(-keys, axis=-1, kind="stable").reshape(*copies, n))

    def settle(self) -> None:
        """Translations at rest."""
        moved = settled(self._read(), self.held.keys(), ())
        self.weights.now.update({name: values() for name, values in moved.items()})

    def rescale(self) -> None:
        """The weights of least norm; gains that tell units of a rotation apart, and what has no least norm, are one."""
        self.absorb()
        free = [a for a in self.structure.rescalings if not self.gains & {o.tensor for o in a.charge}]
        both = [a for a in two_sided(self.structure) if a in free]
        for action in (a for a in free if a not in both):
            name = next((o.tensor for o in action.charge if o.tensor in self.held), None)
            if name is not None:
                action.move(self.weights, self._unit(action, name))
        if both:
            scales = Scales(self._read(), both)
            self.weights.now.update(scales.apply(gauge(scales, "norm")))

    def absorb(self) -> None:
        """Gains that tell units of a rotation apart go into what reads them."""
        for action in self.structure.rescalings:
            name = next((o.tensor for o in action.charge if o.tensor in self.gains & self.held.keys()), None)
            if name is not None:
                action.move(self.weights, self._unit(action, name))

    def _unit(self, action: Rescaling, name: str) -> Array:
        """The scales that make the root of the mean square of every unit of a weight one."""
        if isinstance(action, TensorRescaling):
            power, mean = float(action.charge[whole(name)]), np.array([self._norm(name) / self.weights.get(name).size])
        else:
            met = [one for one in self.met(action) if one.name == name]
            power = met[0].power
            ones = [replace(one, rows=np.ones_like(one.rows)) for one in met]
            mean = self.sums(action, met, 2) / np.maximum(self.sums(action, ones, 1), 1)
        return np.asarray(np.where(mean > 0, mean, 1.0) ** (-0.5 / power))

    def all(self, kind: type[Kind]) -> list[Kind]:
        """The exact actions of a kind."""
        return [action for action in self.structure.actions.values() if isinstance(action, kind)]

    def _each(self, actions: Sequence[Kind]) -> Iterator[tuple[Kind, Collection[str]]]:
        """The actions one after another, each with the weights in which no later one moves anything else."""
        left = list(actions)
        while left:
            waiting = {action.leaf for action in left}
            action, names = next(((a, names) for a in left if (names := self._alone(a.leaf, waiting))), (left[0], []))
            left.remove(action)
            yield action, names

    def _alone(self, leaf: int, waiting: set[int]) -> list[str]:
        """The weights that hold a leaf once, and no other of those that wait."""
        return [n for n, own in self.held.items() if own.count(leaf) == 1 and waiting & {*own} <= {leaf}]

    def met(self, action: Action) -> list[Met]:
        """Where the weights of an action hold its units."""
        found: list[Met] = []
        sizes = action.shape(self.structure)[:-1]
        for name in self.held:
            powers = action.powers(name)
            if (action.charge and not powers) or action.leaf not in self.held[name]:
                continue
            for stand in action.stands(self.structure, name):
                power = powers.get((stand.axis, stand.term, stand.place), 0)
                if power or not action.charge:
                    rows, owner = lines(self.weights.get(name).astype(np.float64), stand, sizes)
                    found.append(Met(name, stand, float(power), rows[owner >= 0], owner[owner >= 0]))
        return found

    def grams(self, action: Action, met: Sequence[Met]) -> Array:
        """Sums of squares and products of the units, copy by copy: (copies, n, n)."""
        *copies, n = action.shape(self.structure)
        gram = np.zeros((prod(copies), n, n))
        for one in met:
            for copy in np.unique(one.owner):
                part = one.rows[one.owner == copy]
                gram[copy] += part.T @ part
        return gram

    def balancing(self, action: InvertibleMap) -> Array:
        """The matrix after which writers and readers have one and the same, diagonal Gram matrix."""
        form = action.shape(self.structure)
        met = [one for one in self.met(action) if one.name not in self.biases]
        ahead, behind = (self.grams(action, [one for one in met if one.power * way > 0]) for way in (1, -1))
        made = np.broadcast_to(np.eye(form[-1]), ahead.shape).copy()
        for k, (one, other) in enumerate(zip(ahead, behind, strict=True)):
            if all(_full(gram) for gram in (one, other)):
                root = np.linalg.cholesky(one)
                sizes, basis = np.linalg.eigh(root.T @ other @ root)
                made[k] = (basis[:, ::-1] * sizes[::-1] ** 0.25).T @ np.linalg.inv(root)
        return made.reshape(*form, form[-1])

    def _axes(self, action: Rotation, met: Sequence[Met]) -> Array:
        """The rotation that makes eigenvectors of the Gram matrix the units, the signs chosen by some weights."""
        form = action.shape(self.structure)
        fixing = isinstance(action, OrthogonalMap) and action.fixes_ones
        across = across_ones(form[-1]) if fixing else np.eye(form[-1])
        grams = self.grams(action, self._framed(action, self.met(action)))
        _, basis = np.linalg.eigh(across.T @ grams @ across)
        basis = across @ basis[:, :, ::-1]
        seen = self._framed(action, met)
        cubes = np.zeros((len(grams), basis.shape[-1]))
        for one in seen:
            for copy in np.unique(one.owner):
                cubes[copy] += ((one.rows[one.owner == copy] @ basis[copy]) ** 3).sum(0)
        basis = basis * np.where(cubes < 0, -1.0, 1.0)[:, None]
        rest = np.eye(form[-1]) - across @ across.T
        return np.asarray(across @ basis.swapaxes(-1, -2) + rest).reshape(*form, form[-1])

    def _framed(self, action: Rotation, met: Sequence[Met]) -> list[Met]:
        """The same as seen in the frame of each occurrence, in which the rotation acts as it is."""
        if not isinstance(action, OrthogonalMap) or not action.framed:
            return list(met)
        numbers, found = self.weights.numbers, list[Met]()
        for one in met:
            frame = np.ones(one.rows.shape[-1])
            place = next(o for o in action.charge if (o.tensor, o.axis, o.term, o.place) == one.place)
            for gain, exponent in action.frames.get(place, ()):
                frame = frame * as_divisor(numbers.value(gain)) ** exponent
            found.append(replace(one, rows=one.rows / frame**one.power))
        return found

    def _angles(self, action: PlaneRotation) -> Array:
        """The angles after which the first elements of all pairs are as large as can be."""
        start = dict(self.weights.now)
        form, sizes = action.shape(self.structure), list[Array]()
        for angle in (0.0, np.pi / 4, np.pi / 2):
            self.weights.now = dict(start)
            action.move(self.weights, np.full(form, angle))
            sizes.append(self.sums(action, self.met(action)[::2], 2))
        self.weights.now = start
        return np.asarray(np.arctan2(sizes[1] - (sizes[0] + sizes[2]) / 2, (sizes[0] - sizes[2]) / 2) / 2)

    def sums(self, action: Action, met: Sequence[Met], power: int) -> Array:
        """Sums of powers over each unit, in the shape of an element."""
        form = action.shape(self.structure)
        found = np.zeros((prod(form[:-1]), form[-1]))
        for one in met:
            np.add.at(found, one.owner, one.rows**power)
        return found.reshape(form)

    def _norm(self, name: str) -> float:
        return float(np.square(self.weights.get(name), dtype=np.float64).sum())

    def _read(self) -> Structure:
        """The network with the present weights."""
        return reread(self.structure, {name: partial(_itself, values) for name, values in self.weights.now.items()})


def _itself(values: Array) -> Array:
    return values


def _full(gram: Array) -> bool:
    sizes = np.linalg.eigvalsh(gram)
    return bool(sizes[0] > DEFICIENT * sizes[-1])


def _still(before: Array, after: Array) -> bool:
    return bool(np.abs(after - before).max(initial=0) <= STILL * np.abs(after).max(initial=0))


def _rounded(tensor: Tensor, values: Array) -> Array:
    return np.broadcast_to(values, tensor.shape).astype(numpy_type(CODES[tensor.dtype]), copy=False)


def _near(tensor: Tensor, values: Array) -> bool:
    """Whether the stored numbers are the same to within some roundings."""
    before, after = (x.astype(np.float64) for x in (tensor.read(), values))
    few = SETTLED * ROUNDING.get(tensor.dtype, FINE)
    return bool(np.abs(after - before).max(initial=0) <= few * np.abs(before).max(initial=0))
