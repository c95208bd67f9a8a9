"""Everything Ray: session, cache in the object store, judgement broker, cohort trainer, Tune trials."""
