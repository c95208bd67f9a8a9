"""What several commands do on the way: cohort, judge, run folder."""
