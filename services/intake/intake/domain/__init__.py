"""Pure decisions of intake, a module for each thing they are about."""
