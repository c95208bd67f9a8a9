"""Networks fitted on other applicants' judgements, from which an agent starts."""
