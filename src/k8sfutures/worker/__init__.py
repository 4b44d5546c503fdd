"""The program that runs in a pod: the agent, and the CPU processes that run calls."""
