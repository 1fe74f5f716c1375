"""The extraction run: what is to be done, who does it, and the store that comes out."""
