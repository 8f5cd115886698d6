"""Parts of the program inside a function's process. Nothing here may import what is slow to load, or the agent."""
