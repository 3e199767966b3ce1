"""The rules of symlint, one per module; a module's docstring is the manual page of its rule.

======  =================================================================================================
SYM00x  what could not be audited, and weights that are no numbers
SYM01x  what pinned axes show: inputs that nothing reads, outputs that do not depend on the input; and what is stored:
        initial states, tensors that nothing reads, and copies
SYM10x  units that a rescaling symmetry has lost: dead, constant, vanishing
SYM20x  units that a permutation symmetry has made equal
SYM30x  products whose rank a rotation symmetry has lowered
SYM40x  parameters that a translation makes redundant
SYM60x  directions of a residual stream that nothing reads or writes
SYM70x  the gauge itself: scales that are bad for quantisation or half precision
SYM80x  constraints that the user declares, and what collapse looks like from the weights
======  =================================================================================================

The engine never imports this package; it finds it by the entry point group ``symlint.rules``, like any other.
"""
