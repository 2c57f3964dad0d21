// The image of the local cluster's sandboxes, and the pod by which a started cluster checks itself.
module partwarden.dev/lab/probe

go 1.26.0
