"""Networks fitted on other applicants' judgements, which give an agent its prior."""
