"""Operator rules, one module a family; each rule lowers its operator to the primitives of `symlint.program.steps`."""
