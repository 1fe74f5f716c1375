"""One seed: settings, batches, the loop, and the checkpoint that it leaves."""
