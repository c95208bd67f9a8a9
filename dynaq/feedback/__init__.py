"""What applicants were shown and did, and what can be learned and estimated from it."""
