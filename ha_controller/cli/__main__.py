"""`python -m ha_controller.cli`: the command line without an installed script."""

from ha_controller.cli import main

main()
