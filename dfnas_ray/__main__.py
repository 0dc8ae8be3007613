"""`python -m dfnas_ray` runs the `dfnas` command. Submitted jobs run the package of their working directory with it."""

from dfnas_ray.cli.main import main

if __name__ == "__main__":
    main()
