"""The agent: Q-network, world model, replay, and the loop that ties them together."""
