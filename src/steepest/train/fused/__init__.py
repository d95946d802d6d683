"""A population's pass in generated C++: member by member, so that each stays in the cache.

    lowering       a recorded pass of all members  ->  C++ that does the pass of one
    operations     how each operation is written
    elementwise    of those, what is done element by element;  sums, norms, spatial: others
    views          what computes nothing, and where members are in it
    products       matrix products of one thread;  convolutions: as such products
    writer         arrays of one member's numbers, and what becomes of them
    text           types, functions of one number, the loop over members
    program        compiled, and ready to be called

Torch carries out a pass operation by operation, each over all members: between two operations
everything leaves the cache, and small operations cost more to start than to do. Here a thread
takes one member through its whole pass, then the next one. What a member gives depends on nothing
but its own numbers, not even on how many others there are.
"""

from __future__ import annotations

from steepest.train.fused.lowering import Lowered, lower
from steepest.train.fused.program import Fused
from steepest.train.fused.writer import Unfit

__all__ = ["Fused", "Lowered", "Unfit", "lower"]
