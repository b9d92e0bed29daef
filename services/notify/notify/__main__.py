from notify.app import main

main()
