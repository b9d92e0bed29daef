from chassis.starting import without_collecting

with without_collecting():
    from intake.app import main

main()
