"""How processes hear of each other's invalidations and events."""
