"""What a trained model does with other data: metrics, scores of new videos, and why."""
