"""Judgements, the protocol of a judge, and ledgers of what was judged."""
