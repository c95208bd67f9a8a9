"""The lines that an audit draws."""

from __future__ import annotations

# With which all intervals of an audit hold at once: an alarm stops a promotion, and audits are repeated.
CERTAINTY = 0.99
POWER = 0.9  # with which an effect is called detectable
FOUR_FIFTHS = 0.8  # the least impact ratio: the EEOC's rule of thumb, 29 CFR § 1607.4 D
SMALLEST = 10  # people of a group that is shown
