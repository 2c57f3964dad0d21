"""A real Azure Blob server, azurite, in memory.

with AzureServer.start(say) as azure:
    azure.make_container("archives")
    azure.endpoint, azure.account, azure.key, azure.sas()
"""

from lab.azure.server import AzureServer

__all__ = ["AzureServer"]
