"""Ways to install, tried on fresh machines; run by make targets (`make help`), not by pytest."""
