"""Checkpoints: found on disk, downloaded, checked by hash, and put into modules strictly."""
