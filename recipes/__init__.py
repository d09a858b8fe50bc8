"""One method, one file. Every module-level `Recipe` value is a recipe, named by its variable."""
