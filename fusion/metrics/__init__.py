"""What a prediction is worth (regression.py), and how sure that is (bootstrap.py)."""
