"""HTTP shapes that cross a boundary: between services, and with departments and targets outside."""
