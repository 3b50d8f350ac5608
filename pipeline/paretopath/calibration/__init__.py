"""What calibration images say of channels: which go first, and what makes up for them."""
