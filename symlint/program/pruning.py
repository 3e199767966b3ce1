"""Pruning: a program without what nothing reads."""

from __future__ import annotations

from dataclasses import replace

from symlint.program.steps import Program, Step, operands, results


def pruned(program: Program) -> Program:
    """The program less its dead steps and tables; a step that reads a weight stays, so that it is accounted for."""
    reads = program.reads.copy()
    reads.update(program.outputs)
    kept, gone = list[Step](), set[str]()
    for step in reversed(program.steps):
        made = results(step)
        if made and not any(reads[name] for name in made) and program.weights.keys().isdisjoint(operands(step)):
            reads.subtract(operands(step))
            gone.update(made)
        else:
            kept.append(step)
    gone.update(name for name in program.tables if not reads[name])
    return replace(
        program,
        steps=tuple(reversed(kept)),
        shapes={name: shape for name, shape in program.shapes.items() if name not in gone},
        tables={name: value for name, value in program.tables.items() if name not in gone},
    )
