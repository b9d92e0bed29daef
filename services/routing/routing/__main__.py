from routing.app import main

main()
