"""The commands of `dynaq`, one module each."""
