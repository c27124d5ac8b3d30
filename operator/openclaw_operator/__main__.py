from openclaw_operator.cli import main

main()
