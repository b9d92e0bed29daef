from chassis.starting import without_collecting

with without_collecting():
    from dept_adapter.app import main

main()
