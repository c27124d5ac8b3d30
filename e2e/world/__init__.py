"""The world that the end-to-end tests act in: images, a release of the chart, an object store, services, clients."""
