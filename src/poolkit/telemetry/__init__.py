"""What the pool tells the outside about itself."""
