from chassis.starting import without_collecting

with without_collecting():
    from routing.app import main

main()
