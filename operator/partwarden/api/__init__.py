"""The custom resources as models, their validation, and the CRDs generated from them. Values only."""
