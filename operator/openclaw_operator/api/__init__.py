"""The custom resource: its models, its rules, and the CustomResourceDefinition made from them."""
