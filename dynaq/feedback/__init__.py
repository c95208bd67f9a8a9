"""What people did and were shown, and what can be learned and estimated from it."""
