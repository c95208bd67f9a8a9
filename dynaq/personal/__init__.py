"""Personal data: found in texts by rules, and taken out of them."""
