"""The Kubernetes API as typed calls: client, credentials, object cache, leader election."""
