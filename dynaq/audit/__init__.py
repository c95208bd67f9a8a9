"""Audit of a judge and a run: counterfactual profiles, groups, power, a planted bias, and the record that is kept."""
