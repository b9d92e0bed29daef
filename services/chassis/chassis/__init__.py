"""The microservice chassis: what every service of xinfu shares, and nothing of what any of them decides."""
