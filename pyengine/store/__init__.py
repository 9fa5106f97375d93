"""The store: database, blobs, layers, images, volumes."""
