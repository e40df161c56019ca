"""The table of passes over arrays: each formula stands once in torch, and those that pay for it once more in Numba.

A call of torch does one operation on all of an array; what the loops do with a spectrum takes ten of them, which read
and write memory ten times. A compiled pass does all in one go, on rows shared out to threads. Both have one name and
one signature, in `formulas_*.py` and `fast_*.py`; `choice.py` says when which is used. Products of matrices are
torch's.
"""

from __future__ import annotations

from pyro_minvae.inference.ops import formulas_e_step, formulas_m_step
from pyro_minvae.inference.ops.choice import chosen_by_size, compiled, expect, using

# The decoder: powers of two, and the way back through them.
decode_ = chosen_by_size(formulas_e_step.decode_)
through = chosen_by_size(formulas_e_step.through)

# The mixture's likelihood and its derivative.
log_likelihood = chosen_by_size(formulas_e_step.log_likelihood)
slope = chosen_by_size(formulas_e_step.slope)

# Gaussian priors.
log_mixture = chosen_by_size(formulas_e_step.log_mixture)
mixture_gradient = chosen_by_size(formulas_e_step.mixture_gradient)
responsibility = chosen_by_size(formulas_e_step.responsibility)

# Metropolis' decision, and what follows from it.
decide = chosen_by_size(formulas_e_step.decide)
exchange = chosen_by_size(formulas_e_step.exchange)

# The M-step and the filters.
harmonic_mean = chosen_by_size(formulas_m_step.harmonic_mean)
statistics = chosen_by_size(formulas_m_step.statistics)
gain_statistics = chosen_by_size(formulas_m_step.gain_statistics)
noise_moment = chosen_by_size(formulas_m_step.noise_moment)
speech_moment = chosen_by_size(formulas_m_step.speech_moment)
move_chain = chosen_by_size(formulas_m_step.move_chain)
filters = chosen_by_size(formulas_m_step.filters)

TABLE = (
    *(
        decode_,
        through,
        log_likelihood,
        slope,
        log_mixture,
        mixture_gradient,
        responsibility,
        decide,
        exchange,
    ),
    *(harmonic_mean, statistics, gain_statistics, noise_moment, speech_moment, move_chain, filters),
)

__all__ = ["TABLE", "compiled", "expect", "using", *(one.__name__ for one in TABLE)]
