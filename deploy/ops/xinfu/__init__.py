"""The xinfu command line: runs the local stack, shows the main job, imports records, prints traces."""
