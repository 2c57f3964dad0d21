"""The command line."""

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="partwarden")
def main() -> None:
    """Keep PostgreSQL range partitions the way a PartitionPolicy says."""


if __name__ == "__main__":
    main()
