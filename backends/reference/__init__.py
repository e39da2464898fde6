"""The reference interpreter: what a program means, in float64 NumPy, one tick after the other."""

from nldsl.backends.reference.gradients import Gradients, gradients
from nldsl.backends.reference.interpreter import Reference, State, Step

__all__ = ["Gradients", "Reference", "State", "Step", "gradients"]
