"""What ships to a device."""
