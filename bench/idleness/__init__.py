"""What bench/forecast.py runs: owners who come and go, and other ways to foretell when."""
