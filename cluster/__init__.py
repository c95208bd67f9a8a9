"""Everything that runs on Ray: session, cache in the object store, judgement broker, cohort trainer, Tune trials."""
