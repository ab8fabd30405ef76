"""The families, one file each. A file registers its family when imported; nothing else lists it."""
