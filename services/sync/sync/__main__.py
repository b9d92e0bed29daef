from chassis.starting import without_collecting

with without_collecting():
    from sync.app import main

main()
