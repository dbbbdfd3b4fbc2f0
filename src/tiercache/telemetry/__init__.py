"""What the cache tells the outside about itself."""
