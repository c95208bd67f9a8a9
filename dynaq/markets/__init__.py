"""Job markets made from public occupational data: postings, applicants, and relevance that the data itself gives.

Relevance never comes from our embeddings or a judge, so that ranking quality is measured against something else.
"""

from __future__ import annotations

from dynaq.markets.esco import esco_market
from dynaq.markets.generator import Market
from dynaq.markets.onet import onet_market

__all__ = ["Market", "esco_market", "onet_market"]
