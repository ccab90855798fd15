from recipes.namm_tiny.train import main

if __name__ == "__main__":
    main()
