"""Declared reflections: which elements of which generators words or directions of units stand for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import reduce
from itertools import combinations
from math import prod

import numpy as np

from symlint.evidence.mirrors.reflection import STILL, NotShown, Reflection
from symlint.evidence.options import Surface
from symlint.model.errors import UsageProblem
from symlint.model.graph import Array
from symlint.symmetry.actions.permutation import PartExchange
from symlint.symmetry.actions.rotation import OrthogonalMap, PlaneRotation
from symlint.symmetry.actions.translation import Shift
from symlint.symmetry.spaces import Kind
from symlint.symmetry.structure import Action, Structure

MOST = 3
"""Sign symmetries of one space that are tried together."""
WIDEST = 4096
"""Units of which a reflection along any direction is written out as a matrix."""


def reflections(
    structure: Structure, name: str, axis: int, surface: Surface, tensors: Collection[str]
) -> list[Reflection]:
    """The elements that do what words say with the units along one axis of a weight of the program.

    Only what moves nothing but `tensors` is looked for, unless there is no such element.

    Raises `UsageProblem` where there are no such units, and `NotShown` where no generator moves them so.
    """
    kind: Kind = "permutation" if surface.word == "swap" else "sign"
    found: list[Reflection] = []
    counts: list[int] = []
    reasons: list[str] = []
    for leaf in _leaves(structure, name, axis):
        actions = _actions(structure, leaf, (kind,))
        sizes = {_count(structure, a) for a in actions} or _sizes(structure, leaf)
        counts += sorted(sizes)
        if not actions and surface.count in (0, *sizes):
            reasons.append(_absent(structure, leaf, kind))
        actions = [a for a in actions if surface.count in (0, _count(structure, a))]
        actions = [a for a in actions if max(surface.units) < _count(structure, a)]
        for some in _signs(structure, actions, tensors) if kind == "sign" else [(a,) for a in actions]:
            try:
                made = tuple((a, _element(structure, a, surface)) for a in some)
            except NotShown as reason:
                reasons.append(str(reason))
            else:
                found.append(Reflection(leaf, surface.units, made))
    if found:
        return found
    stored = structure.program.weights[name]
    if surface.count and surface.count not in counts:
        raise UsageProblem(f"axis {axis} of {stored} holds no space of {surface.count} units: it has {_or(counts)}")
    if max(surface.units) >= (surface.count or max(counts)):
        raise UsageProblem(f"unit {max(surface.units)} is out of range: axis {axis} of {stored} has {_or(counts)}")
    raise NotShown("; ".join(dict.fromkeys(reasons)))


def along(structure: Structure, name: str, axis: int, directions: Array, tensors: Collection[str]) -> list[Reflection]:
    """The elements that turn round directions (units, k), orthonormal, of the units along one axis.

    Raises `UsageProblem` where no space has so many units, and `NotShown` where no generator holds the reflection.
    """
    n = len(directions)
    sizes = {x: _sizes(structure, x) for x in _leaves(structure, name, axis)}
    leaves = [x for x in sizes if n in sizes[x]]
    if not leaves:
        counts = [count for found in sizes.values() for count in sorted(found)]
        raise UsageProblem(f"axis {axis} of {structure.program.weights[name]} has {_or(counts)}")
    if n > WIDEST:
        raise NotShown(f"its surface has {n} units, and symlint follows {WIDEST} at most in any direction")
    matrix = np.eye(n) - 2 * directions @ directions.T
    units = tuple(np.flatnonzero(np.abs(directions).max(axis=1, initial=0.0) > STILL).tolist())
    found: list[Reflection] = []
    for leaf in leaves:
        found += [Reflection(leaf, units, parts) for parts in _splits(structure, leaf, matrix, tensors)]
    if not found:
        framed = any(_framed(a) for x in leaves for a in _actions(structure, x, ("rotation",)))
        reason = "the gains of a norm tell the units apart" if framed else "no symmetry mixes these units so"
        raise NotShown(reason)
    return found


def _splits(
    structure: Structure, leaf: int, matrix: Array, tensors: Collection[str]
) -> Iterator[tuple[tuple[Action, Array], ...]]:
    """A matrix of all units as elements of the generators of a space."""
    size = np.abs(matrix)
    order, sign = size.argmax(axis=1), np.sign(matrix[np.arange(len(matrix)), size.argmax(axis=1)])
    if np.abs(size - np.eye(len(matrix))[order]).max() < STILL:
        moving, turning = bool((order != np.arange(len(order))).any()), bool((sign < 0).any())
        permutations = _actions(structure, leaf, ("permutation",)) if moving else [None]
        for permutation in permutations:
            flips = [a for a in _actions(structure, leaf, ("sign",)) if _count(structure, a) == len(sign)]
            for signs in _signs(structure, flips, tensors) if turning else [()]:
                parts = [(a, sign.reshape(_form(structure, a))) for a in signs]
                if permutation is not None:
                    parts.append((permutation, _order(structure, permutation, order)))
                yield tuple(parts)
        return
    for action in _actions(structure, leaf, ("rotation",)):
        blocks = None if isinstance(action, PlaneRotation) else _blocks(structure, action, matrix)
        if blocks is None or _framed(action):
            continue
        fixing = isinstance(action, OrthogonalMap) and action.fixes_ones
        if not fixing or np.abs(blocks.sum(axis=-1) - 1).max() < STILL:
            yield ((action, blocks),)


def _framed(action: Action) -> bool:
    """Whether gains tell the units apart that an action mixes."""
    return isinstance(action, OrthogonalMap) and action.framed


def _blocks(structure: Structure, action: Action, matrix: Array) -> Array | None:
    """A matrix of all units copy by copy; None where it mixes copies."""
    form = _form(structure, action)
    n, copies = form[-1], prod(form[:-1])
    if n * copies != len(matrix):
        return None
    apart = matrix.reshape(copies, n, copies, n)
    mine = apart[np.arange(copies), :, np.arange(copies)]
    return mine.reshape(*form, n) if np.sum(apart**2) - np.sum(mine**2) < STILL else None


def _element(structure: Structure, action: Action, surface: Surface) -> Array:
    form = _form(structure, action)
    if surface.word == "sign":
        element = np.ones(prod(form))
        element[list(surface.units)] = -1.0
        return element.reshape(form)
    order = np.arange(prod(form))
    first, second = surface.units[::2], surface.units[1::2]
    order[[*first, *second]] = [*second, *first]
    return _order(structure, action, order)


def _order(structure: Structure, action: Action, order: Array) -> Array:
    """An order of all units as one within each copy."""
    n, form = _form(structure, action)[-1], _form(structure, action)
    copy = np.arange(len(order)) // n
    if (order // n != copy).any():
        a, b = next((u, int(v)) for u, v in enumerate(order) if v // n != u // n)
        raise NotShown(f"units {a} and {b} are in different heads, groups or copies, which only change places whole")
    return (order % n).reshape(form)


def _leaves(structure: Structure, name: str, axis: int) -> list[int]:
    factors = structure.axes.factors
    found = [x for x in dict.fromkeys(factors.leaves(structure.axes.of[name][axis])) if factors.size(x) > 1]
    if not found:
        raise UsageProblem(f"axis {axis} of {structure.program.weights[name]} holds no units")
    return found


def _actions(structure: Structure, leaf: int, kinds: Sequence[Kind]) -> list[Action]:
    found = (a for a in structure.actions.values() if a.leaf == leaf and a.kind in kinds)
    return [a for a in found if not isinstance(a, PartExchange | Shift)]


def _form(structure: Structure, action: Action) -> tuple[int, ...]:
    size = structure.axes.factors.size
    return (*(size(c) for c in action.copies), size(action.leaf))


def _count(structure: Structure, action: Action) -> int:
    return prod(_form(structure, action))


def _sizes(structure: Structure, leaf: int) -> set[int]:
    kinds: tuple[Kind, ...] = ("permutation", "sign", "rotation")
    found = {_count(structure, a) for a in _actions(structure, leaf, kinds)}
    return found or {structure.axes.factors.size(leaf)}


def _signs(structure: Structure, actions: Sequence[Action], tensors: Collection[str]) -> Iterator[tuple[Action, ...]]:
    """Products of sign symmetries that move nothing but some tensors; each alone where there are none.

    Two of them that move a weight both leave it where it was, so that this is elimination modulo 2.
    """
    rows = [(frozenset(_signed(structure, action)), frozenset([action.id])) for action in actions]
    for place in sorted({p for moved, _ in rows for p in moved if p[0] not in tensors}):
        pivot = next((row for row in rows if place in row[0]), None)
        if pivot is not None:
            rows.remove(pivot)
            rows = [(m ^ pivot[0], names ^ pivot[1]) if place in m else (m, names) for m, names in rows]
    chosen = [names for _, names in rows] or [frozenset([action.id]) for action in actions]
    found = [
        reduce(frozenset.symmetric_difference, some) for k in range(1, MOST + 1) for some in combinations(chosen, k)
    ]
    for names in dict.fromkeys((*found, reduce(frozenset.symmetric_difference, chosen, frozenset()))):
        if names and (rows or len(names) == 1):
            yield tuple(a for a in actions if a.id in names)


def _signed(structure: Structure, action: Action) -> Iterator[tuple[str, int]]:
    """The stored tensors that a sign moves, and along which axis."""
    program = structure.program
    for o in action.charge:
        affine = program.affines.get(o.tensor)
        name = o.tensor if affine is None else affine.gain if o.tensor == affine.scale else affine.bias
        if name in program.weights and name not in program.detached:
            yield program.weights[name], o.axis


def _absent(structure: Structure, leaf: int, kind: Kind) -> str:
    """Why no generator of a kind moves the units of a space."""
    pin = structure.axes.factors.pins.get(leaf)
    if kind == "permutation" and pin is not None:
        return f"its units stay in place: {pin}"
    return "the sign of its units is seen" if kind == "sign" else "its units stay in place"


def _or(counts: Sequence[int]) -> str:
    """Numbers of units in words."""
    return f"{' or '.join(str(n) for n in dict.fromkeys(counts))} units"
