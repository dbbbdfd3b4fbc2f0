"""Which entry leaves first when memory is full, and when an entry's time is over."""
