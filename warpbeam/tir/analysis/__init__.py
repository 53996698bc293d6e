"""What can be found out about a loop program by reading it: places, accesses, regions."""
