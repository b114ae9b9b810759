"""Real images and shapes that networks are made of."""
