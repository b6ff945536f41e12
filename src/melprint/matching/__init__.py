"""From the neighbours of segments to tracks and places."""
