"""What run.py does before anything is installed: the standard library is all it may import."""
