"""What a training is measured by at its evaluations."""
