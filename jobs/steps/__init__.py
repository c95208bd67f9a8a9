"""Steps that several commands share: reading the cohort, opening the judge, preparing the run folder."""
