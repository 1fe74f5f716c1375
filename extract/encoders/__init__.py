"""Frozen pretrained encoders, one file a family: what they consume, and the rows they give."""
