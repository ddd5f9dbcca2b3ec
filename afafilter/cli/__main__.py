from afafilter.cli import main

main()
