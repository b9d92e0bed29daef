from sync.app import main

main()
