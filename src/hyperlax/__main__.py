from hyperlax.commands.main import main

main()
