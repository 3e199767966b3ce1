"""Caches that grow from nothing: what they hold is what was put into them, at this step or an earlier one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from symlint.model.states import grows
from symlint.program.mixing import MixKind
from symlint.program.steps import SUM, Concat, Loop, Mix, Program, Step, rearranges


def without_caches(program: Program) -> Program:
    """The program in which a growing cache is a map, along time, of what is new at each step.

    What nobody has put there is not in it: what is true of the new at every step is true of the cache.
    """
    found = {loop: place for loop in program.loops if (place := _place(program, loop)) is not None}
    if not found:
        return program
    steps = list(program.steps)
    for k, new, axis in found.values():
        step = steps[k]
        assert isinstance(step, Concat)
        keep = tuple(None if a == axis else a for a in range(len(program.shapes[step.out])))
        steps[k] = Mix(step.out, new, keep, SUM, MixKind.ALL_SO_FAR, steady=False, linear=True, node=step.node)
    loops = tuple(replace(loop, flows=loop in found) for loop in program.loops)
    return replace(program, steps=tuple(steps), loops=loops)


def _place(program: Program, loop: Loop) -> tuple[int, str, int] | None:
    """Where a growing cache is put together: the step, what is new there, and along which axis."""
    if not grows(loop.axes, program.shapes[loop.input]):
        return None
    (end,) = list(_back(program, loop.output))[-1:]
    step = program.producers.get(end)
    if not isinstance(step, Concat) or len(step.operands) != 2:
        return None
    for new, old in (step.operands, step.operands[::-1]):
        way = list(_back(program, old))
        if way[-1] == loop.input and all(program.reads[name] == 1 for name in way):
            return program.places[step.out], new, step.axis
    return None


def _back(program: Program, name: str) -> Iterator[str]:
    """A tensor and what it is only another layout of, backwards."""
    yield name
    while _moves(step := program.producers.get(name)):
        assert step is not None
        (name,) = step.operands
        yield name


def _moves(step: Step | None) -> bool:
    """Whether a step is its operand, in another layout."""
    if step is None or len(step.operands) != 1:
        return False
    if not rearranges(step):
        return step.function == "Identity" or isinstance(step, Concat)
    return {x for axis in step.specs[0] for x in axis} == {x for axis in step.result for x in axis}
