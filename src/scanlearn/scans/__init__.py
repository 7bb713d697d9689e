"""What a scan is: reading, geometry, intensity, the prepared store and its loader."""
