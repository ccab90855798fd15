from namm_lab.universal.command import main

if __name__ == "__main__":
    main()
