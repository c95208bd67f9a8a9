"""RLlib's DQN on the same environment, as a trial to compare with."""
