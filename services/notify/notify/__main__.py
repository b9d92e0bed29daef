from chassis.starting import without_collecting

with without_collecting():
    from notify.app import main

main()
