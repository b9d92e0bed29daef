from dept_adapter.app import main

main()
