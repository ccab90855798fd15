from namm_lab.decision.command import main

if __name__ == "__main__":
    main()
