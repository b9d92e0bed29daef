"""The outside world as one process: stand-ins for targets, departments, sign-in, mail and a trace store."""
