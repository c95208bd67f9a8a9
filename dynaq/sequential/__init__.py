"""People who change with what they see, and agents that plan for it.

Importing this room registers `dynaq/JobMarket-v1`. `dynaq.env` does not: Gymnasium would then call v0 out of date.
"""

import gymnasium

SEQUENTIAL_ID = "dynaq/JobMarket-v1"

gymnasium.register(SEQUENTIAL_ID, entry_point="dynaq.sequential.environment:SequentialJobMarketEnv")
