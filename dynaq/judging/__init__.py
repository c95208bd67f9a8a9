"""Judgements, the protocol of a judge, and ledgers of past judgements."""
