"""The command line."""

import click

from . import crd


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="partwarden")
def main() -> None:
    """Keep PostgreSQL range partitions the way a PartitionPolicy says."""


@main.command()
def crds() -> None:
    """Print the CustomResourceDefinition, for kubectl apply -f -."""
    click.echo(crd.document(), nl=False)


if __name__ == "__main__":
    main()
