"""What a run reports about itself: heartbeat, progress, status."""
