"""What a model costs when deployed."""
