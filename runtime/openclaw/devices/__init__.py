"""What this machine grants the process."""
