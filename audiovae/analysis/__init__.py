"""What can be said about sounds: distances, opinion scores."""
