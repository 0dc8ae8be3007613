"""`python -m dfnas_ray`: the command of the package in the working directory, as submitted jobs call it."""

from dfnas_ray.cli.main import main

if __name__ == "__main__":
    main()
