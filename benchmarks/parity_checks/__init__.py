"""One file a model: our module filled with the recipe's weights, and what both give."""
