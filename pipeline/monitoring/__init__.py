"""What a run says of itself while it goes: heartbeat, progress lines, status."""
